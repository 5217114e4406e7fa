//! To be widened.
use crate::Error;
/// Proxy.
#[derive(Debug)]
pub struct Proxy;
impl Proxy {
    pub(crate) async fn before(_port: u16) -> Result<Self, Error> {
        Err(Error::Refused("not yet".into()))
    }
}
