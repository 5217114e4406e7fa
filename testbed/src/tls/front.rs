//! TLS before a server that has none, or that must show another certificate.
//!
//! Speaks the first words of PostgreSQL's protocol (`SSLRequest`, `GSSENCRequest`), makes the handshake, and
//! from then on only carries bytes. A client that asks for no TLS is carried as it comes, as by a server
//! that allows both.

use std::io;
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use super::{Certificates, ServerCert};
use crate::background::runtime;
use crate::proxy::{bind, port_path};
use crate::{Error, Node, port};

const SSL_REQUEST: u32 = 80_877_103;
const GSSENC_REQUEST: u32 = 80_877_104;

/// A TLS front before one server. Dropping it closes its port and connections.
#[derive(Debug)]
pub struct TlsFront {
    port: u16,
    /// Closed when the front is dropped, which ends its task.
    _alive: oneshot::Sender<()>,
}

impl TlsFront {
    /// A front before `node` that shows the chosen certificate.
    pub async fn new(
        node: &Node,
        certificates: &Certificates,
        cert: ServerCert,
    ) -> Result<Self, Error> {
        Self::before(node.port(), certificates, cert).await
    }

    /// A front before a server on this machine, known by its port.
    pub async fn before(
        server: u16,
        certificates: &Certificates,
        cert: ServerCert,
    ) -> Result<Self, Error> {
        let acceptor = acceptor(certificates, cert)?;
        let started = runtime().spawn(async move {
            let port = port::free()?;
            let listener = bind(port)
                .await
                .map_err(Error::io("listen at", port_path(port).as_ref()))?;
            let (alive, ended) = oneshot::channel();
            runtime().spawn(serve(listener, acceptor, server, ended));
            Ok(Self {
                port,
                _alive: alive,
            })
        });
        started
            .await
            .map_err(|error| Error::Refused(error.to_string()))?
    }

    /// Its TCP port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Where the database `app` is reached through it at `localhost`, as the user `app`, with options such
    /// as `sslmode=require`.
    pub fn url(&self, options: &str) -> String {
        use crate::config::{APP, PASSWORD};
        format!(
            "postgresql://{APP}:{PASSWORD}@localhost:{}/{APP}?{options}",
            self.port
        )
    }
}

fn acceptor(certificates: &Certificates, cert: ServerCert) -> Result<TlsAcceptor, Error> {
    let (cert_file, key_file) = (
        certificates.server_cert_file(cert),
        certificates.server_key_file(cert),
    );
    let unreadable = |error: rustls::pki_types::pem::Error| {
        Error::io("read", &cert_file)(io::Error::new(io::ErrorKind::InvalidData, error))
    };
    let chain = vec![CertificateDer::from_pem_file(&cert_file).map_err(unreadable)?];
    let key = PrivateKeyDer::from_pem_file(&key_file).map_err(unreadable)?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .and_then(|config| config.with_no_client_auth().with_single_cert(chain, key));
    let mut config = config.map_err(Error::Tls)?;
    config.alpn_protocols = vec![b"postgresql".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}

async fn serve(
    listener: TcpListener,
    acceptor: TlsAcceptor,
    server: u16,
    mut ended: oneshot::Receiver<()>,
) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            _ = &mut ended => return,
            accepted = listener.accept() => {
                if let Ok((client, _)) = accepted {
                    // Its failures show at the client, as a server's would.
                    connections.spawn(connection(client, acceptor.clone(), server));
                }
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn connection(mut client: TcpStream, acceptor: TlsAcceptor, server: u16) -> io::Result<()> {
    client.set_nodelay(true)?;
    loop {
        let mut opening = [0; 8];
        client.read_exact(&mut opening).await?;
        match u32::from_be_bytes([opening[4], opening[5], opening[6], opening[7]]) {
            GSSENC_REQUEST => client.write_all(b"N").await?,
            SSL_REQUEST => {
                client.write_all(b"S").await?;
                let mut client = acceptor.accept(client).await?;
                let mut server = connect(server).await?;
                copy_bidirectional(&mut client, &mut server).await?;
                return Ok(());
            }
            _ => {
                let mut server = connect(server).await?;
                server.write_all(&opening).await?;
                copy_bidirectional(&mut client, &mut server).await?;
                return Ok(());
            }
        }
    }
}

async fn connect(server: u16) -> io::Result<TcpStream> {
    let server = TcpStream::connect(("127.0.0.1", server)).await?;
    server.set_nodelay(true)?;
    Ok(server)
}
