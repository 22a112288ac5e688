//! TLS of connectors. In: paths of PEM files. Out: the settings of a client, all with the one cryptography of this build.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use freshet_core::{Error, Result};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};

/// Where systems keep the certificates they trust.
const SYSTEM_ROOTS: [&str; 4] =
    ["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/ca-bundle.pem", "/etc/ssl/cert.pem"];

/// The files that `tls.*` options name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TlsFiles {
    /// Whom to trust; None: whom the system trusts.
    pub ca: Option<PathBuf>,
    /// Who we are: a certificate chain and its key.
    pub client: Option<(PathBuf, PathBuf)>,
}

impl TlsFiles {
    /// Reads the files. Errors: Invalid, naming the file.
    pub fn client_config(&self) -> Result<ClientConfig> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| Error::internal(format!("TLS: {error}")))?
            .with_root_certificates(self.roots()?);
        match &self.client {
            None => Ok(builder.with_no_client_auth()),
            Some((chain, key)) => {
                let certificates = certificates(chain)?;
                let private = PrivateKeyDer::from_pem_file(key).map_err(|error| unreadable(key, "a private key", &error))?;
                builder
                    .with_client_auth_cert(certificates, private)
                    .map_err(|error| Error::invalid(format!("{} and {} do not belong together: {error}", chain.display(), key.display())))
            }
        }
    }

    fn roots(&self) -> Result<RootCertStore> {
        let path = match &self.ca {
            Some(path) => path.clone(),
            None => SYSTEM_ROOTS
                .iter()
                .map(PathBuf::from)
                .find(|path| path.exists())
                .ok_or_else(|| Error::invalid("this system has no list of trusted certificates; name one with tls.ca = '/path/to/ca.pem'"))?,
        };
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(certificates(&path)?);
        if roots.is_empty() {
            return Err(Error::invalid(format!("{} holds no certificate that can be trusted", path.display())));
        }
        Ok(roots)
    }
}

/// Clients that bring no settings of their own take the process's default: it is this build's one cryptography.
pub fn install_provider() {
    // An earlier call, by whomever, has done it.
    let _ = rustls::crypto::ring::default_provider().install_default();
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>> {
    let found = CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    match found {
        Ok(certificates) if !certificates.is_empty() => Ok(certificates),
        Ok(_) => Err(Error::invalid(format!("{} holds no certificate; it must be a PEM file", path.display()))),
        Err(error) => Err(unreadable(path, "certificates", &error)),
    }
}

fn unreadable(path: &Path, what: &str, error: &rustls::pki_types::pem::Error) -> Error {
    Error::invalid(format!("cannot read {what} from {}: {error}", path.display()))
}
