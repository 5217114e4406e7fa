//! To be widened.
use crate::{
    Error,
    node::{Node, Shared},
    run_as::RunAs,
};
use std::path::{Path, PathBuf};
/// Certificates.
#[derive(Debug, Clone)]
pub struct Certificates {
    dir: PathBuf,
}
impl Certificates {
    pub(crate) fn write_to(dir: &Path, _user: RunAs) -> Result<Self, Error> {
        Ok(Self {
            dir: dir.to_owned(),
        })
    }
    pub(crate) fn server_files(&self) -> [String; 3] {
        [const { String::new() }; 3]
    }
    /// CA.
    pub fn ca_file(&self) -> PathBuf {
        self.dir.join("ca.crt")
    }
}
#[derive(Debug)]
pub(crate) struct NodeTls;
impl NodeTls {
    pub(crate) fn for_node(_node: &Node) -> Result<Option<Self>, Error> {
        Ok(None)
    }
    pub(crate) fn url(&self, _port: u16, _shared: &Shared) -> String {
        String::new()
    }
}
