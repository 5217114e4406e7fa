//! From a place to a stream that speaks the protocol: name, socket, TLS.
//!
//! Names are asked for at each connect, and each of their addresses is tried in turn. TLS is agreed on and
//! shaken hands over before the driver sees the stream, so that everything above it is recorded.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::{TcpStream, UnixStream, lookup_host};
use tokio::time::{Instant, timeout};
use tokio_postgres::tls::{ChannelBinding, MakeTlsConnect, TlsConnect, TlsStream};
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::address::{Place, SslMode, Target};
use crate::error::{Error, ErrorKind};

type Addresses = Pin<Box<dyn Future<Output = io::Result<Vec<SocketAddr>>> + Send>>;

/// Looks up a host's addresses, in place of the operating system.
pub(crate) type Resolver = Arc<dyn Fn(String, u16) -> Addresses + Send + Sync>;

/// The message that asks a server for TLS.
const SSL_REQUEST: [u8; 8] = [0, 0, 0, 8, 4, 210, 22, 47];

/// Whether to ask for TLS on this attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Encryption {
    No,
    IfOffered,
    Yes,
}

/// The attempts that a mode makes, in order; a later one only where the server refused the one before.
pub(crate) fn attempts(mode: SslMode, place: &Place) -> &'static [Encryption] {
    match (place, mode) {
        // As with libpq, a Unix socket needs no encryption.
        (Place::Unix { .. }, _) | (_, SslMode::Disable) => &[Encryption::No],
        (_, SslMode::Allow) => &[Encryption::No, Encryption::IfOffered],
        (_, SslMode::Prefer) => &[Encryption::IfOffered, Encryption::No],
        (_, SslMode::Require | SslMode::VerifyCa | SslMode::VerifyFull) => &[Encryption::Yes],
    }
}

/// Opens a stream to a place, within the time that the target gives to one.
pub(crate) async fn dial(
    target: &Target,
    place: &Place,
    encryption: Encryption,
) -> Result<Channel, Error> {
    dial_until(target, place, encryption, Instant::now() + target.limit).await
}

/// Opens a stream to a place. If it has several addresses, each gets a fair share of the time that is left; that
/// the whole ends in time is the caller's part.
pub(crate) async fn dial_until(
    target: &Target,
    place: &Place,
    encryption: Encryption,
    end: Instant,
) -> Result<Channel, Error> {
    let unreachable = |cause| {
        Error::from_source(
            ErrorKind::Connect,
            format!("could not connect to {place}"),
            cause,
        )
    };
    let (mut socket, host) = match place {
        Place::Unix { folder, port } => {
            let socket = UnixStream::connect(Place::socket(folder, *port)).await;
            (Socket::Unix(socket.map_err(unreachable)?), "")
        }
        Place::Tcp { host, .. } => {
            let socket = tcp(place, target, end).await?;
            (Socket::Tcp(socket), host.as_str())
        }
    };
    if encryption == Encryption::No {
        return Ok(Channel::Plain(socket));
    }
    // Built before anything is sent: a certificate file that can't be read is no reason to bother the server.
    let tls = target.tls.clone();
    let mut connector = tokio::task::spawn_blocking(move || tls.connector())
        .await
        .map_err(|cause| {
            Error::from_source(ErrorKind::Tls, "the certificates could not be read", cause)
        })??;
    socket.write_all(&SSL_REQUEST).await.map_err(unreachable)?;
    match socket.read_u8().await.map_err(unreachable)? {
        b'S' => {}
        b'N' if encryption == Encryption::IfOffered => return Ok(Channel::Plain(socket)),
        b'N' => {
            return Err(Error::new(
                ErrorKind::Tls,
                format!(
                    "{place} offers no TLS, and the sslmode demands it: switch it on at the server, or set \
                     sslmode=prefer"
                ),
            ));
        }
        _ => {
            return Err(Error::new(
                ErrorKind::Connect,
                format!(
                    "{place} did not answer like a PostgreSQL server: look at the host and the port"
                ),
            ));
        }
    }
    let handshake =
        <MakeRustlsConnect as MakeTlsConnect<Socket>>::make_tls_connect(&mut connector, host)
            .map_err(|error| {
                Error::from_source(ErrorKind::Tls, format!("no TLS name in {place}"), error)
            })?;
    let stream = handshake.connect(socket).await.map_err(|cause| {
        Error::from_source(
            ErrorKind::Tls,
            format!("the TLS handshake with {place} failed{}", remedy(&cause)),
            cause,
        )
    })?;
    Ok(Channel::Tls(Box::new(stream)))
}

/// What to do about a handshake that failed.
fn remedy(cause: &io::Error) -> &'static str {
    use rustls::CertificateError as C;
    let inner = cause
        .get_ref()
        .and_then(|inner| inner.downcast_ref::<rustls::Error>());
    let Some(rustls::Error::InvalidCertificate(certificate)) = inner else {
        return "";
    };
    match certificate {
        // A signature is bad where another authority has the same name.
        C::UnknownIssuer | C::BadSignature => {
            ": name the authority that signed the server's certificate in sslrootcert"
        }
        C::Expired | C::ExpiredContext { .. } => ": the server's certificate has expired, renew it",
        C::NotValidForName | C::NotValidForNameContext { .. } => {
            ": the server's certificate names another host (a common name alone does not count): connect by a \
             name that is in it, or use sslmode=verify-ca"
        }
        _ => "",
    }
}

async fn tcp(place: &Place, target: &Target, end: Instant) -> Result<TcpStream, Error> {
    let addresses = addresses(place, target).await.map_err(|cause| {
        Error::from_source(
            ErrorKind::Connect,
            format!("could not look up the address of {place}"),
            cause,
        )
    })?;
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for (tried, address) in addresses.iter().enumerate() {
        let left = u32::try_from(addresses.len() - tried).unwrap_or(u32::MAX);
        let share = end.saturating_duration_since(Instant::now()) / left;
        let attempt = TcpStream::connect(*address);
        let connected = if left == 1 {
            attempt.await
        } else {
            timeout(share, attempt).await.unwrap_or_else(|_elapsed| {
                let text = format!("no answer within {share:?}, a fair share of the time left");
                Err(io::Error::new(io::ErrorKind::TimedOut, text))
            })
        };
        match connected.and_then(|stream| tune(&stream, target).map(|()| stream)) {
            Ok(stream) => return Ok(stream),
            Err(error) => {
                tracing::debug!(%address, %error, "an address of a host did not answer");
                last = error;
            }
        }
    }
    let message = match addresses.len() {
        0 | 1 => format!("could not connect to {place}"),
        several => format!("could not connect to {place}, at none of its {several} addresses"),
    };
    Err(Error::from_source(ErrorKind::Connect, message, last))
}

/// Where a place is now: names are never remembered.
async fn addresses(place: &Place, target: &Target) -> io::Result<Vec<SocketAddr>> {
    match place {
        Place::Tcp {
            port,
            address: Some(address),
            ..
        } => Ok(vec![SocketAddr::new(*address, *port)]),
        Place::Tcp { host, port, .. } => match &target.resolver {
            Some(resolve) => resolve(host.clone(), *port).await,
            None => Ok(lookup_host((host.as_str(), *port)).await?.collect()),
        },
        Place::Unix { .. } => Ok(Vec::new()),
    }
}

fn tune(stream: &TcpStream, target: &Target) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let socket = SockRef::from(stream);
    if let Some(keepalive) = target.keepalive {
        let probes = TcpKeepalive::new()
            .with_time(keepalive.idle)
            .with_interval(keepalive.interval)
            .with_retries(keepalive.count);
        socket.set_tcp_keepalive(&probes)?;
    }
    #[cfg(target_os = "linux")]
    socket.set_tcp_user_timeout(target.tcp_user_timeout)?;
    Ok(())
}

/// A connected socket.
pub(crate) enum Socket {
    Tcp(TcpStream),
    Unix(UnixStream),
}

type Encrypted = <MakeRustlsConnect as MakeTlsConnect<Socket>>::Stream;

/// A stream that the protocol can be spoken over.
pub(crate) enum Channel {
    Plain(Socket),
    Tls(Box<Encrypted>),
}

macro_rules! stream {
    ($type:ident, $first:ident, $second:ident) => {
        impl AsyncRead for $type {
            fn poll_read(
                self: Pin<&mut Self>,
                cx: &mut Context<'_>,
                buf: &mut ReadBuf<'_>,
            ) -> Poll<io::Result<()>> {
                match self.get_mut() {
                    Self::$first(stream) => Pin::new(stream).poll_read(cx, buf),
                    Self::$second(stream) => Pin::new(stream).poll_read(cx, buf),
                }
            }
        }

        impl AsyncWrite for $type {
            fn poll_write(
                self: Pin<&mut Self>,
                cx: &mut Context<'_>,
                buf: &[u8],
            ) -> Poll<io::Result<usize>> {
                match self.get_mut() {
                    Self::$first(stream) => Pin::new(stream).poll_write(cx, buf),
                    Self::$second(stream) => Pin::new(stream).poll_write(cx, buf),
                }
            }

            fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
                match self.get_mut() {
                    Self::$first(stream) => Pin::new(stream).poll_flush(cx),
                    Self::$second(stream) => Pin::new(stream).poll_flush(cx),
                }
            }

            fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
                match self.get_mut() {
                    Self::$first(stream) => Pin::new(stream).poll_shutdown(cx),
                    Self::$second(stream) => Pin::new(stream).poll_shutdown(cx),
                }
            }
        }
    };
}

stream!(Socket, Tcp, Unix);
stream!(Channel, Plain, Tls);

impl TlsStream for Channel {
    fn channel_binding(&self) -> ChannelBinding {
        match self {
            Self::Plain(_) => ChannelBinding::none(),
            Self::Tls(stream) => stream.channel_binding(),
        }
    }
}

/// Tells the driver that hands were shaken already: the stream goes through as it is.
pub(crate) struct Shaken;

impl<S: TlsStream + Unpin> TlsConnect<S> for Shaken {
    type Stream = S;
    type Error = io::Error;
    type Future = std::future::Ready<io::Result<S>>;

    fn connect(self, stream: S) -> Self::Future {
        std::future::ready(Ok(stream))
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::address::EngineConfig;

    /// What the system was told of a connection opened by these settings.
    async fn told(url: &str) -> (bool, Option<Duration>, Option<Duration>) {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await;
        let listener = listener.expect("a free port");
        let port = listener.local_addr().expect("bound").port();
        let options: EngineConfig = url.parse().expect("a good URL");
        let target = Target::new(&options, None, None).expect("good settings");
        let place = Place::Tcp {
            host: "127.0.0.1".to_owned(),
            port,
            address: None,
        };
        let end = Instant::now() + Duration::from_secs(10);
        let stream = tcp(&place, &target, end).await.expect("connected");
        let socket = SockRef::from(&stream);
        let probed = socket.keepalive().expect("an option");
        let idle = socket.tcp_keepalive_time().expect("an option");
        let unanswered = socket.tcp_user_timeout().expect("an option");
        (probed, probed.then_some(idle), unanswered)
    }

    #[tokio::test]
    async fn a_peer_that_falls_silent_is_noticed_unless_that_is_switched_off() {
        let minute = Some(Duration::from_mins(1));
        let by_default = told("postgresql://u@h/db").await;
        assert_eq!(by_default, (true, minute, Some(Duration::from_secs(30))));
        let url = "postgresql://u@h/db?keepalives_idle=7&tcp_user_timeout=2500";
        let as_said = told(url).await;
        let seven = Some(Duration::from_secs(7));
        assert_eq!(as_said, (true, seven, Some(Duration::from_millis(2500))));
        let off = told("postgresql://u@h/db?keepalives=0&tcp_user_timeout=0").await;
        assert!(!off.0);
        assert!(off.2.is_none_or(|limit| limit.is_zero()), "{off:?}");
    }
}
