//! libpq's password file: lines of `host:port:database:user:password`, the first that fits.
//!
//! Read at each connect, so that a password that was changed in it is used. A file that others may read is not
//! used, as with libpq, and warned of once.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use super::Secret;
use super::target::Place;

/// Where passwords may be found.
pub(crate) struct PassFile {
    path: PathBuf,
    warned: AtomicBool,
}

impl PassFile {
    pub(super) fn new(path: PathBuf) -> Self {
        Self {
            path,
            warned: AtomicBool::new(false),
        }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The password for a place, if the file has one. Blocks for as long as reading a small file takes.
    pub(crate) fn find(&self, place: &Place, dbname: &str, user: &str) -> Option<Secret> {
        let kind = std::fs::metadata(&self.path).ok()?;
        if !kind.is_file() {
            self.warn("it is not a plain file");
            return None;
        }
        #[cfg(unix)]
        if std::os::unix::fs::MetadataExt::mode(&kind) & 0o077 != 0 {
            self.warn("others may read it: its mode must be u=rw (0600) or less");
            return None;
        }
        let Ok(text) = std::fs::read_to_string(&self.path) else {
            self.warn("it can't be read as UTF-8");
            return None;
        };
        let (host, port) = place.in_password_file();
        let wanted = [&*host, &*port.to_string(), dbname, user];
        text.lines().find_map(|line| password(line, wanted))
    }

    fn warn(&self, why: &str) {
        // Ordering: Relaxed; nothing hangs on it but a second warning.
        if !self.warned.swap(true, Ordering::Relaxed) {
            tracing::warn!(file = %self.path.display(), "the password file is not used: {why}");
        }
    }
}

/// The password in a line, if all before it fits.
fn password(line: &str, wanted: [&str; 4]) -> Option<Secret> {
    let line = line.trim_end_matches('\r');
    if line.starts_with('#') {
        return None;
    }
    let mut rest = line;
    for wanted in wanted {
        let (field, after) = field(rest);
        // Only a bare star stands for anything; an escaped one is itself.
        if field != wanted && !rest.starts_with("*:") {
            return None;
        }
        rest = after?;
    }
    Some(Secret(field(rest).0))
}

/// The text up to a colon that no backslash precedes, without its backslashes; and what follows the colon.
fn field(text: &str) -> (String, Option<&str>) {
    let mut field = String::new();
    let mut rest = text.chars();
    loop {
        match rest.next() {
            None => return (field, None),
            Some(':') => return (field, Some(rest.as_str())),
            // One at the very end is itself.
            Some('\\') => field.push(rest.next().unwrap_or('\\')),
            Some(c) => field.push(c),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(line: &str) -> Option<String> {
        password(line, ["h", "5432", "d:b", "u"]).map(|secret| secret.0)
    }

    #[test]
    fn a_line_fits_by_its_fields_by_stars_and_with_escapes() {
        assert_eq!(found(r"h:5432:d\:b:u:pass"), Some("pass".to_owned()));
        assert_eq!(found("*:*:*:*:any\r"), Some("any".to_owned()));
        assert_eq!(found(r"*:*:*:u:a\:b\\c"), Some(r"a:b\c".to_owned()));
        assert_eq!(found("*:*:*:u:ends:here"), Some("ends".to_owned()));
        assert_eq!(found("*:*:*:u:"), Some(String::new()));
        for other in [
            "#*:*:*:*:pass",
            "g:5432:*:u:pass",
            "h:5433:*:u:pass",
            "h:5432:d:u:pass",
            r"\*:5432:*:u:pass",
            "h:5432:*",
            "",
        ] {
            assert_eq!(found(other), None, "{other}");
        }
    }

    #[test]
    fn the_first_line_that_fits_counts_and_a_socket_is_localhost() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("pgpass");
        std::fs::write(&path, "localhost:*:*:u:first\n*:*:*:*:second\n").expect("written");
        restrict(&path, 0o600);
        let file = PassFile::new(path.clone());
        let tcp = |host: &str| Place::Tcp {
            host: host.to_owned(),
            port: 5432,
            address: None,
        };
        let find = |place: &Place| file.find(place, "d", "u").map(|secret| secret.0);
        assert_eq!(find(&tcp("localhost")).as_deref(), Some("first"));
        assert_eq!(find(&tcp("elsewhere")).as_deref(), Some("second"));
        let socket = Place::unix(Path::new("/var/run/postgresql"), 5432);
        assert_eq!(find(&socket).as_deref(), Some("first"));
        let socket = Place::unix(Path::new("/somewhere/else"), 5432);
        assert_eq!(find(&socket).as_deref(), Some("second"));

        std::fs::write(&path, "*:*:*:*:changed\n").expect("written");
        assert_eq!(find(&tcp("localhost")).as_deref(), Some("changed"));
        restrict(&path, 0o640);
        assert_eq!(find(&tcp("localhost")), None, "others may read it");
        assert_eq!(
            PassFile::new(dir.path().to_owned()).find(&tcp("h"), "d", "u"),
            None
        );
        assert_eq!(
            PassFile::new(dir.path().join("none")).find(&tcp("h"), "d", "u"),
            None
        );
    }

    fn restrict(path: &Path, mode: u32) {
        use std::os::unix::fs::PermissionsExt;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).expect("a mode");
    }
}
