//! FNV-1a, a hash of a few bytes that is the same everywhere and for ever (Fowler, Noll, Vo, 1991).

/// The hash of 64 bits.
pub(crate) fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}
