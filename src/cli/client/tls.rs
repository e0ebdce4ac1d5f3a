//! TLS to a server: whom to trust, and what to show.

use std::path::Path;

use tonic::transport::{Certificate, ClientTlsConfig, Identity};

use super::super::failure::Failure;
use super::super::{output, secret_text};

/// The files that the flags name.
pub(super) struct Files<'a> {
    pub(super) ca: Option<&'a Path>,
    pub(super) certificate: Option<&'a Path>,
    pub(super) key: Option<&'a Path>,
}

impl Files<'_> {
    /// Reads them. Without an authority of one's own the system's are trusted.
    pub(super) fn read(&self) -> Result<ClientTlsConfig, Failure> {
        let tls = match self.ca {
            Some(path) => ClientTlsConfig::new()
                .ca_certificate(Certificate::from_pem(read(path, "the authority's certificate")?)),
            None => ClientTlsConfig::new().with_enabled_roots(),
        };
        match (self.certificate, self.key) {
            (None, None) => Ok(tls),
            (Some(certificate), Some(key)) => {
                let certificate = read(certificate, "your certificate")?;
                if secret_text::is_open_to_others(key) {
                    output::talk(&format!(
                        "warning: `{}` can be read by others than its owner; run `chmod 600` on it\n",
                        output::safe(&key.display().to_string())
                    ));
                }
                let key = read(key, "your certificate's key")?;
                Ok(tls.identity(Identity::from_pem(certificate, key)))
            }
            (Some(_), None) => {
                Err(Failure::fault("`--client-cert` needs `--client-key` beside it"))
            }
            (None, Some(_)) => {
                Err(Failure::fault("`--client-key` needs `--client-cert` beside it"))
            }
        }
    }
}

fn read(path: &Path, what: &str) -> Result<Vec<u8>, Failure> {
    std::fs::read(path).map_err(|error| {
        Failure::fault(format!("cannot read {what} in `{}`", path.display())).because(error)
    })
}
