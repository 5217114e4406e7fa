//! Any text, read as the address of a database.
//!
//! Reading never panics. What was read is written as a URL that reads back to the same options, and the form
//! for logs holds no password.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pool_postgres::EngineConfig;

/// A shorter password is found in any text by chance.
const SHORTEST: usize = 4;

fuzz_target!(|text: &str| {
    let Ok(options) = text.parse::<EngineConfig>() else {
        return;
    };
    let url = options.render_with_password();
    let again: EngineConfig = url.parse().expect("what was written must be readable");
    assert!(again == options, "{url:?} reads as other options");

    let shown = options.to_string();
    let Some(password) = password_in(&url) else {
        return;
    };
    // Without it, the rest of the URL tells whether the same text stands somewhere else too.
    let rest = url.replacen(&format!(":{password}@"), ":***@", 1);
    if password.len() >= SHORTEST && !rest.contains(password) {
        assert!(!shown.contains(password), "{shown:?} shows the password");
    }
});

/// The password in a URL that we wrote, still percent-encoded: it stands between the user and the '@', where
/// no other ':' or '@' can be.
fn password_in(url: &str) -> Option<&str> {
    let login = url.strip_prefix("postgresql://")?.split_once('@')?.0;
    Some(login.split_once(':')?.1)
}
