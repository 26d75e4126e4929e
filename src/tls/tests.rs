//! Handshakes in memory with certificates made for the test.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::sync::mpsc;

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio_rustls::TlsConnector;

use super::*;

/// An authority, and a directory for the node's files.
pub(crate) struct Site {
    dir: TempDir,
    authority: Issuer<'static, KeyPair>,
    authority_pem: String,
}

pub(crate) struct Identity {
    certificate: String,
    key: String,
}

impl Site {
    pub(crate) fn new() -> Site {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let authority_pem = params.self_signed(&key).unwrap().pem();
        let site = Site {
            dir: tempfile::tempdir().unwrap(),
            authority: Issuer::new(params, key),
            authority_pem,
        };
        site.write("ca.pem", &site.authority_pem);
        site.install(&site.server());
        site
    }

    fn server(&self) -> Identity {
        self.identity(CertificateParams::new(vec!["node.example".to_owned()]).unwrap())
    }

    pub(crate) fn client(&self, name: &str) -> Identity {
        let mut subject = DistinguishedName::new();
        subject.push(DnType::OrganizationName, "Org");
        subject.push(DnType::OrganizationalUnitName, "Ops");
        subject.push(DnType::CommonName, name);
        let mut params = CertificateParams::default();
        params.distinguished_name = subject;
        self.identity(params)
    }

    fn identity(&self, params: CertificateParams) -> Identity {
        let key = KeyPair::generate().unwrap();
        Identity {
            certificate: params.signed_by(&key, &self.authority).unwrap().pem(),
            key: key.serialize_pem(),
        }
    }

    fn install(&self, identity: &Identity) {
        self.write("node.pem", &identity.certificate);
        self.write("node.key", &identity.key);
    }

    /// Under another name first: whoever looks sees the old file or the new one.
    fn write(&self, name: &str, text: &str) {
        let path = self.dir.path().join(name);
        let fresh = path.with_extension("new");
        fs::write(&fresh, text).unwrap();
        fs::rename(fresh, path).unwrap();
    }

    pub(crate) fn config(&self, client_auth: ClientAuth) -> TlsConfig {
        let asks = client_auth != ClientAuth::None;
        TlsConfig {
            certificate_file: self.dir.path().join("node.pem"),
            private_key_file: self.dir.path().join("node.key"),
            client_auth,
            client_ca_file: asks.then(|| self.dir.path().join("ca.pem")),
            protocols: both_versions(),
            principal_mapping_rules: default_rules(),
        }
    }

    pub(crate) fn connector(
        &self,
        identity: Option<&Identity>,
        versions: &[TlsVersion],
    ) -> TlsConnector {
        let versions: Vec<_> = versions
            .iter()
            .map(|version| match version {
                TlsVersion::V12 => &rustls::version::TLS12,
                TlsVersion::V13 => &rustls::version::TLS13,
            })
            .collect();
        let mut roots = RootCertStore::empty();
        roots
            .add(CertificateDer::from_pem_slice(self.authority_pem.as_bytes()).unwrap())
            .unwrap();
        let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_protocol_versions(&versions)
            .unwrap()
            .with_root_certificates(roots);
        let config = match identity {
            Some(identity) => {
                let chain = CertificateDer::pem_slice_iter(identity.certificate.as_bytes());
                let chain = chain.collect::<Result<Vec<_>, _>>().unwrap();
                let key = PrivateKeyDer::from_pem_slice(identity.key.as_bytes()).unwrap();
                builder.with_client_auth_cert(chain, key).unwrap()
            }
            None => builder.with_no_client_auth(),
        };
        TlsConnector::from(Arc::new(config))
    }
}

/// What the node calls the client, and the certificate that the client saw.
async fn meet(tls: &Tls, connector: &TlsConnector) -> Result<(Option<String>, Vec<u8>), String> {
    let (near, far) = tokio::io::duplex(64 << 10);
    let serving = async {
        let (mut stream, name) = tls.let_in(far).await.map_err(|e| e.to_string())?;
        stream
            .write_all(b"hello")
            .await
            .map_err(|e| e.to_string())?;
        stream.shutdown().await.map_err(|e| e.to_string())?;
        Ok(name)
    };
    let asking = async {
        let name = ServerName::try_from("node.example").unwrap();
        let mut stream = connector.connect(name, near).await.ok()?;
        let mut text = Vec::new();
        stream.read_to_end(&mut text).await.ok()?;
        let seen = stream.get_ref().1.peer_certificates()?.first()?.to_vec();
        (text == b"hello").then_some(seen)
    };
    let (name, seen): (Result<_, String>, _) = tokio::join!(serving, asking);
    Ok((name?, seen.ok_or("the client heard nothing")?))
}

fn der(identity: &Identity) -> Vec<u8> {
    CertificateDer::from_pem_slice(identity.certificate.as_bytes())
        .unwrap()
        .to_vec()
}

const BOTH: &[TlsVersion] = &[TlsVersion::V12, TlsVersion::V13];

#[tokio::test]
async fn both_versions_are_spoken_unless_one_is_left_out() {
    let site = Site::new();
    for version in BOTH {
        let connector = site.connector(None, &[*version]);
        let tls = Tls::load(site.config(ClientAuth::None)).unwrap();
        assert_eq!(meet(&tls, &connector).await.unwrap().0, None);
        let other = BOTH.iter().copied().filter(|other| other != version);
        let config = TlsConfig {
            protocols: other.collect(),
            ..site.config(ClientAuth::None)
        };
        let tls = Tls::load(config).unwrap();
        assert!(meet(&tls, &connector).await.is_err(), "{version:?}");
    }
}

#[tokio::test]
async fn clients_are_asked_for_certificates_as_configured() {
    let (site, foreign) = (Site::new(), Site::new());
    let own = site.client("duke");
    let theirs = foreign.client("duke");
    let name = Some("CN=duke,OU=Ops,O=Org".to_owned());
    for version in BOTH {
        for (client_auth, identity, expected) in [
            (ClientAuth::None, Some(&own), Some(None)),
            (ClientAuth::Requested, None, Some(None)),
            (ClientAuth::Requested, Some(&own), Some(name.clone())),
            (ClientAuth::Requested, Some(&theirs), None),
            (ClientAuth::Required, None, None),
            (ClientAuth::Required, Some(&own), Some(name.clone())),
            (ClientAuth::Required, Some(&theirs), None),
        ] {
            let tls = Tls::load(site.config(client_auth)).unwrap();
            let connector = site.connector(identity, &[*version]);
            let met = meet(&tls, &connector).await.ok().map(|(name, _)| name);
            assert_eq!(met, expected, "{version:?} {client_auth:?}");
        }
    }
}

#[tokio::test]
async fn a_subject_is_mapped_and_one_that_no_rule_fits_is_refused() {
    let site = Site::new();
    let config = TlsConfig {
        principal_mapping_rules: "RULE:^CN=(d.*?),.*$/$1/U".to_owned(),
        ..site.config(ClientAuth::Required)
    };
    let tls = Tls::load(config).unwrap();
    let connector = |name| site.connector(Some(&site.client(name)), BOTH);
    let met = meet(&tls, &connector("duke")).await.unwrap();
    assert_eq!(met.0.as_deref(), Some("DUKE"));
    let refused = meet(&tls, &connector("eve")).await.unwrap_err();
    assert!(
        refused.contains("no principal mapping rule fits"),
        "{refused}"
    );
}

#[tokio::test]
async fn files_that_changed_are_in_force_and_wrong_ones_are_told_once() {
    let site = Site::new();
    let first = site.server();
    site.install(&first);
    let tls = Tls::load(site.config(ClientAuth::Required)).unwrap();
    let client = site.client("duke");
    // One client, which keeps its session tickets.
    let connector = site.connector(Some(&client), BOTH);
    let seen = async || meet(&tls, &connector).await.unwrap().1;
    assert_eq!(seen().await, der(&first));
    assert!(!tls.reload().unwrap());

    let second = site.server();
    site.write("node.pem", &second.certificate);
    let error = tls.reload().unwrap_err().to_string();
    assert!(
        error.contains("node.key is not that of the certificate in"),
        "{error}"
    );
    assert!(!tls.reload().unwrap(), "told once");
    assert_eq!(seen().await, der(&first));
    site.write("node.key", &second.key);
    assert!(tls.reload().unwrap());
    assert_eq!(seen().await, der(&second));

    site.write("node.pem", "");
    assert!(tls.reload().is_err());
    fs::remove_file(site.dir.path().join("node.key")).unwrap();
    assert!(matches!(tls.reload(), Err(TlsError::File { .. })));
    site.write("node.pem", &second.certificate);
    assert!(matches!(tls.reload(), Err(TlsError::Read { .. })));
    assert_eq!(seen().await, der(&second));
    site.install(&first);
    assert!(tls.reload().unwrap());
    assert_eq!(seen().await, der(&first));
}

#[tokio::test]
async fn a_session_does_not_outlive_the_authority_that_vouched_for_its_client() {
    let (site, successor) = (Site::new(), Site::new());
    let tls = Tls::load(site.config(ClientAuth::Required)).unwrap();
    for version in BOTH {
        site.write("ca.pem", &site.authority_pem);
        tls.reload().unwrap();
        let connector = site.connector(Some(&site.client("duke")), &[*version]);
        assert!(meet(&tls, &connector).await.is_ok());
        assert!(meet(&tls, &connector).await.is_ok(), "with a ticket");
        site.write("ca.pem", &successor.authority_pem);
        assert!(tls.reload().unwrap());
        assert!(meet(&tls, &connector).await.is_err(), "{version:?}");
    }
}

#[tokio::test]
async fn who_is_told_to_reads_unchanged_files_too_and_keeps_what_is_in_force_where_they_are_wrong()
{
    let site = Site::new();
    let tls = Arc::new(Tls::load(site.config(ClientAuth::None)).unwrap());
    let in_force = || Arc::clone(&tls.current.read().unwrap());
    let first = in_force();
    tls.read_again().await;
    let second = in_force();
    assert!(!Arc::ptr_eq(&first, &second));
    site.write("node.pem", "");
    tls.read_again().await;
    tls.read_again().await;
    assert!(Arc::ptr_eq(&second, &in_force()));
}

#[tokio::test]
async fn a_client_without_tls_is_named_as_such() {
    let site = Site::new();
    let tls = Tls::load(site.config(ClientAuth::None)).unwrap();
    let (mut near, far) = tokio::io::duplex(64 << 10);
    near.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    let refused = tls.let_in(far).await.err().unwrap();
    assert!(matches!(refused, listener::NotLetIn::NotTls), "{refused}");
    let (near, far) = tokio::io::duplex(64 << 10);
    drop(near);
    let refused = tls.let_in(far).await.err().unwrap();
    assert!(matches!(refused, listener::NotLetIn::Closed), "{refused}");
}

#[tokio::test(start_paused = true)]
async fn files_are_followed_until_the_end() {
    let site = Site::new();
    let tls = Arc::new(Tls::load(site.config(ClientAuth::None)).unwrap());
    let before = Arc::clone(&tls.current.read().unwrap());
    site.install(&site.server());
    let stop = CancellationToken::new();
    let following = tokio::spawn(Arc::clone(&tls).follow(Duration::from_secs(30), stop.clone()));
    while Arc::ptr_eq(&before, &tls.current.read().unwrap()) {
        tokio::task::yield_now().await;
    }
    stop.cancel();
    following.await.unwrap();
}

#[tokio::test]
async fn following_ends_at_once_while_the_disk_does_not_answer() {
    let site = Site::new();
    let tls = Arc::new(Tls::load(site.config(ClientAuth::None)).unwrap());
    let stop = CancellationToken::new();
    // Whoever looks waits for this thread, as for a disk.
    let (release, released) = mpsc::channel::<()>();
    let (taken, is_taken) = mpsc::channel();
    let shared = Arc::clone(&tls);
    std::thread::spawn(move || {
        let _seen = shared.seen.lock().unwrap();
        taken.send(()).unwrap();
        let _ = released.recv();
    });
    is_taken.recv().unwrap();
    let before = Arc::strong_count(&tls);
    let following = tokio::spawn(Arc::clone(&tls).follow(CHECK_EVERY, stop.clone()));
    // One more for who follows, and one for the look.
    while Arc::strong_count(&tls) < before + 2 {
        tokio::task::yield_now().await;
    }
    stop.cancel();
    let ended = tokio::time::timeout(Duration::from_secs(10), following).await;
    drop(release);
    ended.unwrap().unwrap();
}

#[test]
fn what_is_no_regular_file_is_refused_and_not_waited_for() {
    let site = Site::new();
    let tls = Tls::load(site.config(ClientAuth::None)).unwrap();
    let path = site.dir.path().join("node.pem");
    fs::remove_file(&path).unwrap();
    rustix::fs::mkfifoat(rustix::fs::CWD, &path, rustix::fs::Mode::RUSR).unwrap();
    // On a thread, so that a failure is one and not a test that does not end.
    let (told, heard) = mpsc::channel();
    std::thread::spawn(move || told.send(tls.reload().unwrap_err().to_string()));
    let error = heard.recv_timeout(Duration::from_secs(10)).unwrap();
    assert!(
        error.ends_with("node.pem: it is not a regular file"),
        "{error}"
    );
    fs::remove_file(&path).unwrap();
    fs::create_dir(&path).unwrap();
    let error = Tls::load(site.config(ClientAuth::None)).unwrap_err();
    assert!(error.to_string().ends_with("it is not a regular file"));
}

#[test]
fn what_cannot_be_used_is_named_with_its_reason() {
    let site = Site::new();
    let error = |config: TlsConfig| Tls::load(config).unwrap_err().to_string();
    let own = || site.config(ClientAuth::None);
    let at = |name: &str| site.dir.path().join(name);
    let absent = error(TlsConfig {
        certificate_file: at("absent.pem"),
        ..own()
    });
    assert!(
        absent.starts_with("cannot read ") && absent.contains("absent.pem: No such"),
        "{absent}"
    );
    let swapped = error(TlsConfig {
        certificate_file: at("node.key"),
        ..own()
    });
    assert!(
        swapped.ends_with("node.key: it holds no certificate (PEM)"),
        "{swapped}"
    );
    let swapped = error(TlsConfig {
        private_key_file: at("node.pem"),
        ..own()
    });
    assert!(
        swapped.ends_with("node.pem: it holds no private key (PEM)"),
        "{swapped}"
    );
    site.write(
        "locked.key",
        "-----BEGIN ENCRYPTED PRIVATE KEY-----\nMAA=\n-----END ENCRYPTED PRIVATE KEY-----\n",
    );
    let locked = error(TlsConfig {
        private_key_file: at("locked.key"),
        ..own()
    });
    assert!(
        locked.contains("locked.key: its key is encrypted"),
        "{locked}"
    );
    let unsaid = error(TlsConfig {
        client_ca_file: None,
        ..site.config(ClientAuth::Required)
    });
    assert!(unsaid.contains("no client_ca_file"), "{unsaid}");
    let idle = error(TlsConfig {
        client_ca_file: Some(at("ca.pem")),
        ..own()
    });
    assert!(idle.contains("client_auth asks nobody"), "{idle}");
    let none = error(TlsConfig {
        protocols: Vec::new(),
        ..own()
    });
    assert!(none.contains("no protocol"), "{none}");
    let rules = error(TlsConfig {
        principal_mapping_rules: "RULE".to_owned(),
        ..own()
    });
    assert!(rules.contains("no rule begins with"), "{rules}");
}

#[test]
fn a_section_needs_two_files_and_says_the_rest_by_default() {
    let config: TlsConfig = toml::from_str(
        "certificate_file = \"node.pem\"\nprivate_key_file = \"node.key\"\nprotocols = [\"TLSv1.3\"]\nclient_auth = \"requested\"\nclient_ca_file = \"ca.pem\"\n",
    )
    .unwrap();
    assert_eq!(config.protocols, [TlsVersion::V13]);
    assert_eq!(config.client_auth, ClientAuth::Requested);
    assert_eq!(config.principal_mapping_rules, "DEFAULT");
    assert!(toml::from_str::<TlsConfig>("certificate_file = \"node.pem\"").is_err());
    let files = "certificate_file = \"node.pem\"\nprivate_key_file = \"node.key\"\n";
    let of_a_door =
        |rest: &str| toml::from_str::<listener::TlsListenerConfig>(&format!("{files}{rest}"));
    let config = of_a_door("listen = \"127.0.0.1:8883\"").unwrap();
    assert_eq!(config.protocols, both_versions());
    assert!(of_a_door("").is_err());
}
