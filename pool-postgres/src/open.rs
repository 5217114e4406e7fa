//! From a target to a connection that is logged in: places in turn, encrypted or not, with the password of the
//! moment.
//!
//! Each place gets a fair share of the time that is left, so that a silent one leaves time for the rest.

use std::fmt::Write as _;
use std::sync::Arc;

use tokio::time::{Instant, timeout};
use tokio_postgres::SimpleQueryMessage;

use crate::address::{Place, Secret, SslMode, TargetSessionAttrs};
use crate::backend::PgBackend;
use crate::connection::PgConnection;
use crate::dial::{Encryption, Shaken, attempts, dial_until};
use crate::error::{Error, ErrorKind};
use crate::wire::Recorded;

/// Tries the places in turn; the first of the wanted kind will do.
pub(crate) async fn open(backend: &PgBackend) -> Result<PgConnection, Error> {
    let target = backend.target();
    let end = Instant::now() + target.limit;
    let mut places: Vec<_> = target.places.iter().collect();
    if target.shuffled {
        fastrand::shuffle(&mut places);
    }
    let mut failures = Vec::new();
    let mut second_best = None;
    for (tried, place) in places.iter().enumerate() {
        match open_in_time(backend, place, places.len() - tried, end).await {
            Ok((connection, Ok(()))) => return Ok(connection),
            Ok((connection, Err(_)))
                if target.attrs == TargetSessionAttrs::PreferStandby && !connection.is_closed() =>
            {
                second_best.get_or_insert(connection);
            }
            Ok((connection, Err(error))) => {
                connection.close().await;
                failures.push(error);
            }
            // Another server would say the same.
            Err(error) if error.kind() == ErrorKind::Authentication && second_best.is_none() => {
                return Err(error);
            }
            Err(error) => failures.push(error),
        }
    }
    second_best.ok_or_else(|| none_would_do(failures))
}

/// Gives one of several places its share of the time; a single one has all that the pool gives.
async fn open_in_time(
    backend: &PgBackend,
    place: &Place,
    left: usize,
    end: Instant,
) -> Result<(PgConnection, Result<(), Error>), Error> {
    let share =
        end.saturating_duration_since(Instant::now()) / u32::try_from(left).unwrap_or(u32::MAX);
    let attempt = async {
        let connection = open_at(backend, place, Instant::now() + share).await?;
        let fits = check_attrs(&connection, backend.target().attrs, place).await;
        Ok((connection, fits))
    };
    if backend.target().places.len() == 1 {
        return attempt.await;
    }
    timeout(share, attempt).await.unwrap_or_else(|_elapsed| {
        Err(Error::new(
            ErrorKind::Connect,
            format!("{place} did not answer within {share:?}, its share of connect_timeout"),
        ))
    })
}

async fn open_at(backend: &PgBackend, place: &Place, end: Instant) -> Result<PgConnection, Error> {
    let mode = backend.target().tls.mode;
    let mut provided = None;
    let mut refused = None;
    for encryption in attempts(mode, place) {
        match log_in(backend, place, *encryption, end, &mut provided).await {
            // The server wants it the other way, if it wants us at all; or its TLS does not work.
            Err(error)
                if error.sqlstate() == Some("28000")
                    || (error.kind() == ErrorKind::Tls && *encryption == Encryption::IfOffered) =>
            {
                refused.get_or_insert(error);
            }
            other => return other,
        }
    }
    let error = refused.unwrap_or_else(|| Error::new(ErrorKind::Connect, "no attempt was made"));
    if mode == SslMode::Disable && error.to_string().contains("no encryption") {
        return Err(Error::from_source(
            ErrorKind::Tls,
            format!(
                "{place} demands TLS, and sslmode=disable forbids it: set sslmode=require or better"
            ),
            error,
        ));
    }
    Err(error)
}

/// Logs in; where the password may have been changed meanwhile, it is asked for once again before the server's
/// refusal counts. What a provider gave stays in `provided` for the next attempt.
async fn log_in(
    backend: &PgBackend,
    place: &Place,
    encryption: Encryption,
    end: Instant,
    provided: &mut Option<Secret>,
) -> Result<PgConnection, Error> {
    let target = backend.target();
    let mut again = false;
    loop {
        let channel = dial_until(target, place, encryption, end).await?;
        if provided.is_none() {
            // Asked after somebody answered: a server that is down costs no tokens.
            let found = target.passwords.find(place, &target.dbname, &target.user);
            *provided = found.await?;
        }
        let mut login = target.login.clone();
        if let Some(secret) = &*provided {
            login.password(&secret.0);
        }
        let wire = backend.new_record();
        let stream = Recorded::new(channel, Arc::clone(&wire));
        let error = match login.connect_raw(stream, Shaken).await {
            Ok(logged_in) => return Ok(backend.attach(logged_in, wire, place, encryption)),
            Err(error) => Error::at_start(error).with_node(place.to_string()),
        };
        let wrong = error.sqlstate() == Some("28P01");
        if wrong && !again && target.passwords.may_have_changed() {
            again = true;
            *provided = None;
            continue;
        }
        let origin = target
            .passwords
            .origin()
            .filter(|_| wrong && provided.is_some());
        return Err(match origin {
            Some(origin) => error.adding(&origin),
            None => about_certificates(error),
        });
    }
}

/// The last error, with the others in its text.
fn none_would_do(mut failures: Vec<Error>) -> Error {
    let Some(last) = failures.pop() else {
        return Error::new(ErrorKind::Config, "there is no host to connect to");
    };
    if failures.is_empty() {
        return last;
    }
    let mut others = format!("none of {} hosts would do; before it", failures.len() + 1);
    for failure in &failures {
        let _ = write!(others, "; {failure}");
        if let Some(cause) = std::error::Error::source(failure) {
            let _ = write!(others, " ({cause})");
        }
    }
    last.adding(&others)
}

/// Says what to do where the server wants to see a certificate of ours, or does not like it.
fn about_certificates(error: Error) -> Error {
    use rustls::AlertDescription as A;
    let mut cause = std::error::Error::source(&error);
    while let Some(inner) = cause {
        let io = inner.downcast_ref::<std::io::Error>();
        let alert = io.and_then(|io| io.get_ref()?.downcast_ref::<rustls::Error>());
        if let Some(rustls::Error::AlertReceived(alert)) = alert {
            let remedy = match alert {
                A::CertificateRequired => {
                    "the server asks for a client's certificate: set sslcert and sslkey"
                }
                _ => {
                    "the server refused in the TLS handshake: look at sslcert, and at the server's log"
                }
            };
            return error.of_kind(ErrorKind::Tls).adding(remedy);
        }
        cause = inner.source();
    }
    if error.sqlstate() == Some("28000") && error.to_string().contains("client certificate") {
        return error.adding("set sslcert and sslkey");
    }
    error
}

async fn check_attrs(
    connection: &PgConnection,
    attrs: TargetSessionAttrs,
    place: &Place,
) -> Result<(), Error> {
    use TargetSessionAttrs as A;
    if matches!(attrs, A::Any) {
        return Ok(());
    }
    let sql = "SELECT pg_is_in_recovery(), current_setting('transaction_read_only')";
    let answer = connection.driver().simple_query(sql).await;
    let answer = answer.map_err(|error| connection.fault(error))?;
    connection.settled();
    connection.is_clean();
    let row = answer.iter().find_map(|message| match message {
        SimpleQueryMessage::Row(row) => Some((
            row.try_get(0).ok()? == Some("t"),
            row.try_get(1).ok()? == Some("on"),
        )),
        _ => None,
    });
    let (in_recovery, read_only) = row.unwrap_or((true, true));
    let (fits, wanted) = match attrs {
        A::ReadWrite => (!read_only, "read-write"),
        A::ReadOnly => (read_only, "read-only"),
        A::Primary => (!in_recovery, "primary"),
        A::Standby | A::PreferStandby => (in_recovery, "standby"),
        A::Any => (true, "any"),
    };
    if fits {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::Connect,
        format!("{place} is not what target_session_attrs={wanted} asks for"),
    ))
}
