//! What queueing theory says about c servers, random arrivals and a queue without bound.
//!
//! Erlang, "Solution of some problems in the theory of probabilities of significance in automatic telephone
//! exchanges", 1917. Exact for exponential holds; for others Allen and Cunneen's approximation.

/// The probability that an arrival waits (Erlang C), with so many servers and a load of `offered` erlangs
/// (arrivals a second times mean hold). 1 where the load is not below the servers.
///
/// By the recursion of Erlang B, which stays within floating point for any number of servers.
#[allow(clippy::cast_precision_loss, reason = "fewer than 2^53 servers")]
pub fn waiting_probability(servers: usize, offered: f64) -> f64 {
    let c = servers as f64;
    if offered >= c {
        return 1.0;
    }
    let mut blocked = 1.0;
    for n in 1..=servers {
        blocked = offered * blocked / (n as f64 + offered * blocked);
    }
    blocked / (1.0 - (offered / c) * (1.0 - blocked))
}

/// The mean wait of all arrivals in seconds; infinite where the load is not below the servers.
#[allow(clippy::cast_precision_loss, reason = "fewer than 2^53 servers")]
pub fn mean_wait(servers: usize, rate: f64, mean_hold: f64) -> f64 {
    let spare = servers as f64 / mean_hold - rate;
    if spare <= 0.0 {
        return f64::INFINITY;
    }
    waiting_probability(servers, rate * mean_hold) / spare
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_values_of_erlang_c() {
        // One server: the probability of waiting is the load.
        assert!((waiting_probability(1, 0.3) - 0.3).abs() < 1e-12);
        // Two servers: 2ρ²/(1+ρ).
        let rho: f64 = 0.7;
        let two = 2.0 * rho * rho / (1.0 + rho);
        assert!((waiting_probability(2, 1.4) - two).abs() < 1e-12);
        assert!((waiting_probability(4, 4.5) - 1.0).abs() < 1e-12);
        assert!(waiting_probability(2_000, 1_900.0).is_finite());
    }
}
