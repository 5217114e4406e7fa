//! What a tenant is called: text that was looked at before anything is done with it.
//!
//! # What always holds
//! A [`TenantId`] is made of characters on a list, so there is nothing in it that SQL, a path, a host name or a log
//! could take for something else; and it is quoted all the same wherever it goes. Two ids never lead to one object's
//! name: one that does not fit as it stands gets a hash of all of it.

use std::fmt;
use std::sync::Arc;

use sha2::{Digest, Sha256};

/// How long a name of a PostgreSQL object may be, in bytes; what is longer is cut off there, with a notice.
pub(super) const LONGEST_NAME: usize = 63;
/// How many hexadecimal digits of the hash stand at the end of a name that was made: 96 bits.
const HASH_DIGITS: usize = 24;
/// How long an id may be, unless the rules say otherwise.
const LONGEST: usize = 128;
/// The special characters that rules may allow.
const SPECIALS: &str = "-._@:~+";

/// A tenant's name, checked by [`IdRules`].
///
/// Cheap to clone. It is a value that is passed; nothing remembers whose turn it is.
///
/// ```
/// use pool_router::tenancy::TenantId;
///
/// let acme: TenantId = "acme".parse()?;
/// assert_eq!(acme.object_name("t_"), "t_acme");
/// assert!("'; DROP TABLE users; --".parse::<TenantId>().is_err());
/// # Ok::<(), pool_router::tenancy::BadTenantId>(())
/// ```
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TenantId(Arc<str>);

impl TenantId {
    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    pub(crate) fn shared(&self) -> Arc<str> {
        Arc::clone(&self.0)
    }

    /// A name for an object of this tenant's (a schema, a role, a database): the prefix and the id.
    ///
    /// At most 63 bytes. An id that is too long for that, has upper-case letters, or looks as if it had been made by
    /// this function, is replaced by what is left of it and a hash, so that no two ids have one name, whatever case
    /// they are in. The prefix is a constant of the program; quote the name in SQL all the same.
    pub fn object_name(&self, prefix: &str) -> String {
        let id = &*self.0;
        let plain = prefix.len() + id.len() <= LONGEST_NAME
            && !id.bytes().any(|byte| byte.is_ascii_uppercase())
            && !ends_like_a_hash(id);
        if plain {
            return format!("{prefix}{id}");
        }
        let mut hash = String::with_capacity(HASH_DIGITS);
        for byte in &Sha256::digest(id)[..HASH_DIGITS / 2] {
            use fmt::Write as _;
            // Writing to a string does not fail.
            let _ = write!(hash, "{byte:02x}");
        }
        let room = LONGEST_NAME.saturating_sub(prefix.len() + 1 + HASH_DIGITS);
        let start = id[..id.len().min(room)].to_ascii_lowercase();
        format!("{prefix}{start}_{hash}")
    }
}

fn ends_like_a_hash(id: &str) -> bool {
    let Some(start) = id.len().checked_sub(HASH_DIGITS + 1) else {
        return false;
    };
    let end = &id[start..];
    end.starts_with('_')
        && end
            .bytes()
            .skip(1)
            .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// By the default [`IdRules`].
impl std::str::FromStr for TenantId {
    type Err = BadTenantId;

    fn from_str(text: &str) -> Result<Self, BadTenantId> {
        IdRules::default().parse(text)
    }
}

impl AsRef<str> for TenantId {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for TenantId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for TenantId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TenantId({:?})", self.0)
    }
}

/// Which texts may be tenants' ids.
///
/// By default: 1 to 128 lower-case ASCII letters, digits, `-` and `_`, of which the first is a letter or a digit. So
/// it never is empty, has no blanks, quotes, control characters or letters that merely look alike, and no two ids
/// differ in case alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdRules {
    longest: usize,
    also: String,
    uppercase: bool,
}

impl Default for IdRules {
    fn default() -> Self {
        Self {
            longest: LONGEST,
            also: "-_".to_owned(),
            uppercase: false,
        }
    }
}

impl IdRules {
    /// Allows further characters anywhere but in the first place: any of `. @ : ~ +`.
    ///
    /// # Panics
    /// For any other character: it would mean something in SQL, in a path or in a log.
    pub fn also(mut self, characters: &str) -> Self {
        assert!(
            characters.chars().all(|c| SPECIALS.contains(c)),
            "{characters:?} can't be allowed in tenants' ids: only characters of {SPECIALS:?} can be"
        );
        self.also.push_str(characters);
        self
    }

    /// Allows upper-case ASCII letters. `Acme` and `acme` are two tenants then.
    pub fn uppercase(mut self) -> Self {
        self.uppercase = true;
        self
    }

    /// How many bytes an id may have. Default 128, at least 1.
    pub fn longest(mut self, bytes: usize) -> Self {
        self.longest = bytes.max(1);
        self
    }

    /// Reads an id.
    ///
    /// # Errors
    /// [`BadTenantId`] says what is wrong with it, and shows no more than its beginning.
    pub fn parse(&self, text: &str) -> Result<TenantId, BadTenantId> {
        let bad = |why| {
            Err(BadTenantId {
                shown: text.chars().take(40).collect(),
                why,
            })
        };
        if text.is_empty() {
            return bad(WhyBad::Empty);
        }
        if text.len() > self.longest {
            return bad(WhyBad::TooLong {
                bytes: text.len(),
                longest: self.longest,
            });
        }
        for (index, character) in text.chars().enumerate() {
            let fits = match character {
                'a'..='z' | '0'..='9' => true,
                'A'..='Z' => self.uppercase,
                other => index > 0 && self.also.contains(other),
            };
            if !fits {
                return bad(WhyBad::Character { character });
            }
        }
        Ok(TenantId(text.into()))
    }
}

/// A text that is no tenant's id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadTenantId {
    /// Its beginning.
    shown: String,
    why: WhyBad,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum WhyBad {
    Empty,
    TooLong { bytes: usize, longest: usize },
    Character { character: char },
}

impl fmt::Display for BadTenantId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.why {
            WhyBad::Empty => f.write_str("a tenant's id must not be empty"),
            WhyBad::TooLong { bytes, longest } => write!(
                f,
                "{:?}… is no tenant's id: it has {bytes} bytes, and {longest} are allowed",
                self.shown
            ),
            WhyBad::Character { character } => write!(
                f,
                "{:?} is no tenant's id: {character:?} is not allowed where it stands (IdRules say what is)",
                self.shown
            ),
        }
    }
}

impl std::error::Error for BadTenantId {}

/// What names a tenant: a [`TenantId`], a text that is yet to be checked, a
/// [`TenantContext`](crate::tenancy::TenantContext).
pub trait AsTenant {
    /// The id, by these rules.
    ///
    /// # Errors
    /// [`BadTenantId`], for a text that is none.
    fn tenant_id(&self, rules: &IdRules) -> Result<TenantId, BadTenantId>;
}

impl AsTenant for TenantId {
    fn tenant_id(&self, _: &IdRules) -> Result<TenantId, BadTenantId> {
        Ok(self.clone())
    }
}

impl AsTenant for str {
    fn tenant_id(&self, rules: &IdRules) -> Result<TenantId, BadTenantId> {
        rules.parse(self)
    }
}

impl AsTenant for String {
    fn tenant_id(&self, rules: &IdRules) -> Result<TenantId, BadTenantId> {
        rules.parse(self)
    }
}

impl<T: AsTenant + ?Sized> AsTenant for &T {
    fn tenant_id(&self, rules: &IdRules) -> Result<TenantId, BadTenantId> {
        (**self).tenant_id(rules)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn hostile_names_are_refused() {
        let long = "a".repeat(10_000);
        for hostile in [
            "",
            " ",
            "'; DROP TABLE users; --",
            "a\0b",
            "a\"b",
            "a'b",
            "a\\b",
            "a b",
            "a,b",
            "a/b",
            "../etc",
            "-a",
            "_a",
            "a\n",
            "a\u{200b}",
            "аcme",  // A Cyrillic letter.
            "ａcme", // Of full width.
            "ﬁ",
            "İ",
            "Acme",
            "$1",
            "%s",
            "${x}",
            "a.b",
            "(system)",
            &long,
        ] {
            let error = hostile.parse::<TenantId>().expect_err(hostile);
            assert!(error.to_string().len() < 400, "{error}");
        }
        for good in ["acme", "a", "7", "acme-eu_2", &"a".repeat(128)] {
            assert_eq!(good.parse::<TenantId>().expect(good).as_str(), good);
        }
    }

    #[test]
    fn the_list_can_be_extended_by_what_means_nothing_elsewhere() {
        let rules = IdRules::default().also(".@").uppercase().longest(8);
        rules.parse("A.b@c").expect("allowed");
        rules.parse(".a").expect_err("not first");
        rules.parse("abcdefghi").expect_err("too long");
        assert!(std::panic::catch_unwind(|| IdRules::default().also("'")).is_err());
    }

    #[test]
    fn a_name_fits_and_is_the_ids_own() {
        let rules = IdRules::default().uppercase();
        let name = |id: &str| rules.parse(id).expect("an id").object_name("t_");
        assert_eq!(name("acme"), "t_acme");
        assert_ne!(name("Acme").to_lowercase(), name("acme"));
        assert_ne!(name("Acme").to_lowercase(), name("ACME").to_lowercase());
        let (one, two) = (
            name(&("x".repeat(100) + "1")),
            name(&("x".repeat(100) + "2")),
        );
        assert!(
            one.len() == 63 && two.len() == 63 && one != two,
            "{one} {two}"
        );
        // One that was called like another's made name.
        let made = name("Acme");
        let forged = name(made.strip_prefix("t_").expect("a prefix"));
        assert_ne!(made, forged);
    }

    proptest! {
        #[test]
        fn two_ids_never_meet_in_one_name(
            one in "[a-zA-Z0-9][a-zA-Z0-9_-]{0,127}",
            two in "[a-zA-Z0-9][a-zA-Z0-9_-]{0,127}",
            cut in 0usize..128,
        ) {
            let rules = IdRules::default().uppercase();
            // Alike up to somewhere, or in all but case.
            let alike: String = one.chars().take(cut).chain(two.chars().skip(cut)).collect();
            let ids = [one.clone(), two, alike, one.to_lowercase(), one.to_uppercase()];
            for a in &ids {
                for b in &ids {
                    let (a, b) = (rules.parse(a).unwrap(), rules.parse(b).unwrap());
                    let (name_a, name_b) = (a.object_name("tenant_"), b.object_name("tenant_"));
                    prop_assert!(name_a.len() <= 63);
                    prop_assert_eq!(a == b, name_a.to_lowercase() == name_b.to_lowercase());
                }
            }
        }

        #[test]
        fn whatever_is_accepted_is_made_of_what_is_allowed(text in any::<String>()) {
            if let Ok(id) = text.parse::<TenantId>() {
                prop_assert!(id.as_str().bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-_".contains(&b)));
            }
        }
    }
}
