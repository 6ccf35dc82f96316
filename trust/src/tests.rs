//! Who gets through a handshake and who does not: real TLS between two ends in memory.

use super::*;
use holdfast_proto::cluster::{NodeIdentity, Role, Roles};
use holdfast_proto::rpc::Plane;
use holdfast_proto::{ClusterId, NodeId};
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, ServerConfig, ServerConnection};
use std::collections::BTreeSet;
use std::sync::Arc;

const OURS: ClusterId = ClusterId([1; 16]);
const THEIRS: ClusterId = ClusterId([2; 16]);
const NOW: u64 = 1_795_000_000_000;
const DAY: u64 = 86_400_000;
const PLANES: [Plane; 3] = [Plane::Data, Plane::Consensus, Plane::Control];

fn authority(cluster: ClusterId, seed: u8) -> ClusterAuthority {
    ClusterAuthority::create(cluster, &[seed; 32], NOW).unwrap()
}

fn identity(cluster: ClusterId, node: u64, roles: Roles) -> NodeIdentity {
    NodeIdentity { cluster, node: NodeId(node), roles, region: "eu".to_owned(), zone: "a".to_owned() }
}

/// Credentials of a node, signed by one CA at a time, believing in some.
fn made(
    by: &ClusterAuthority,
    believing: &[&ClusterAuthority],
    node: u64,
    roles: Roles,
    at_ms: u64,
) -> NodeCredentials {
    let key = NodeKey::from_seed(&[u8::try_from(node).unwrap() | 0x80; 32]).unwrap();
    let request = CertificateRequest::from_der(&key.request().unwrap()).unwrap();
    let certificate = by.sign(&request, &identity(by.cluster(), node, roles), at_ms).unwrap();
    let roots = believing.iter().map(|root| root.certificate_der().clone()).collect();
    NodeCredentials::new(key, certificate, roots).unwrap()
}

fn live(by: &ClusterAuthority, node: u64) -> Arc<LiveCredentials> {
    LiveCredentials::new(made(by, &[by], node, Roles::BOTH, NOW)).unwrap()
}

fn clock(ms: u64) -> UnixClock {
    UnixClock::new(move || ms)
}

fn server(live: &Arc<LiveCredentials>, plane: Plane) -> ServerConfig {
    server_config(live, plane, &clock(NOW)).unwrap()
}

fn client(live: &Arc<LiveCredentials>, plane: Plane) -> ClientConfig {
    client_config(live, plane, &clock(NOW)).unwrap()
}

/// What both ends know when the handshake is over, or why the first to refuse refused.
struct Met {
    client_saw: Vec<CertificateDer<'static>>,
    server_saw: Option<Vec<CertificateDer<'static>>>,
    tickets: u32,
    protocol: Vec<u8>,
}

fn shake(client: ClientConfig, server: ServerConfig, name: &str) -> Result<Met, String> {
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let mut client = ClientConnection::new(Arc::new(client), name).unwrap();
    let mut server = ServerConnection::new(Arc::new(server)).unwrap();
    let mut wire = Vec::new();
    for _ in 0..20 {
        wire.clear();
        client.write_tls(&mut wire).unwrap();
        server.read_tls(&mut wire.as_slice()).unwrap();
        server.process_new_packets().map_err(|e| format!("server: {e:?}"))?;
        wire.clear();
        server.write_tls(&mut wire).unwrap();
        client.read_tls(&mut wire.as_slice()).unwrap();
        client.process_new_packets().map_err(|e| format!("client: {e:?}"))?;
        if !client.is_handshaking() && !server.is_handshaking() && !client.wants_write() && !server.wants_write() {
            let owned = |chain: &[CertificateDer<'_>]| chain.iter().map(|c| c.clone().into_owned()).collect();
            assert_eq!(client.alpn_protocol(), server.alpn_protocol());
            return Ok(Met {
                client_saw: owned(client.peer_certificates().unwrap()),
                server_saw: server.peer_certificates().map(owned),
                tickets: client.tls13_tickets_received(),
                protocol: client.alpn_protocol().unwrap().to_vec(),
            });
        }
    }
    panic!("the handshake does not end");
}

fn refused(result: Result<Met, String>, by: &str, because: &str) {
    match result {
        Ok(_) => panic!("let through, though {because}"),
        Err(error) => assert!(error.starts_with(by) && error.contains(because), "{by}, {because}: {error}"),
    }
}

fn dial(node: u64) -> String {
    node_name(OURS, NodeId(node))
}

fn token(root: &ClusterAuthority) -> JoinToken {
    JoinToken {
        addresses: vec!["127.0.0.1:1".parse().unwrap()],
        root: root.fingerprint(),
        cluster: root.cluster(),
        id: TokenId([1; 16]),
        secret: TokenSecret([2; 32]),
        expires_ms: NOW + DAY,
    }
}

#[test]
fn two_nodes_of_a_cluster_know_each_other_on_every_plane() {
    let ours = authority(OURS, 1);
    let (a, b) = (live(&ours, 1), live(&ours, 2));
    let mut protocols = BTreeSet::new();
    for plane in PLANES {
        let met = shake(client(&a, plane), server(&b, plane), &dial(2)).unwrap();
        assert_eq!(identity_of(&met.client_saw[0]), Ok(identity(OURS, 2, Roles::BOTH)));
        assert_eq!(identity_of(&met.server_saw.unwrap()[0]), Ok(identity(OURS, 1, Roles::BOTH)));
        assert_eq!(met.tickets, 0, "nothing to resume with");
        protocols.insert(met.protocol);
    }
    assert_eq!(protocols.len(), 3);
    assert!(protocols.contains(b"holdfast-data/1".as_slice()));
}

#[test]
fn planes_do_not_mix() {
    let ours = authority(OURS, 1);
    let (a, b) = (live(&ours, 1), live(&ours, 2));
    for from in PLANES {
        for to in PLANES.into_iter().filter(|&to| to != from) {
            refused(shake(client(&a, from), server(&b, to), &dial(2)), "server", "NoApplicationProtocol");
        }
    }
}

#[test]
fn wrong_certificates_are_refused_on_every_plane() {
    let (ours, foreign, impostor) = (authority(OURS, 1), authority(THEIRS, 1), authority(OURS, 9));
    let us = live(&ours, 1);
    for plane in PLANES {
        // CAs of one cluster bear one name: an issuer is found then, and the signature is not its.
        for (stranger, because) in [(live(&foreign, 2), "UnknownIssuer"), (live(&impostor, 2), "BadSignature")] {
            let name = node_name(stranger.identity().cluster, NodeId(2));
            refused(shake(client(&us, plane), server(&stranger, plane), &name), "client", because);
            // One that does not verify us, to see that we verify it.
            let shown = client(&stranger, plane).client_auth_cert_resolver;
            let mut careless = careless::client(careless::Shows(shown.resolve(&[], &[]).unwrap()));
            careless.alpn_protocols = alpn(plane);
            refused(shake(careless, server(&us, plane), &dial(1)), "server", because);
        }
    }
}

#[test]
fn the_wrong_node_is_refused() {
    let ours = authority(OURS, 1);
    let (a, b) = (live(&ours, 1), live(&ours, 2));
    for plane in PLANES {
        for name in [dial(3), dial(1), dial(22), node_name(THEIRS, NodeId(2)), "n2.holdfast".to_owned()] {
            refused(shake(client(&a, plane), server(&b, plane), &name), "client", "NotValidForName");
        }
        refused(shake(client(&a, plane), server(&b, plane), "10.0.0.1"), "client", "NotValidForName");
    }
}

#[test]
fn certificates_hold_from_a_little_before_they_were_made_to_their_end() {
    let ours = authority(OURS, 1);
    let (a, b) = (live(&ours, 1), live(&ours, 2));
    let at = |client_ms, server_ms| {
        let client = client_config(&a, Plane::Data, &clock(client_ms)).unwrap();
        let server = server_config(&b, Plane::Data, &clock(server_ms)).unwrap();
        shake(client, server, &dial(2))
    };
    let end = NOW + NODE_DAYS * DAY;
    for fine in [NOW, NOW - CLOCK_SLACK_MS, end] {
        assert!(at(fine, fine).is_ok(), "{fine}");
    }
    refused(at(end + 1000, NOW), "client", "Expired");
    refused(at(NOW, end + 1000), "server", "Expired");
    refused(at(NOW - CLOCK_SLACK_MS - 1000, NOW), "client", "NotValidYet");
    refused(at(NOW, NOW - CLOCK_SLACK_MS - 1000), "server", "NotValidYet");
}

#[test]
fn a_removed_node_is_refused_at_either_end() {
    let ours = authority(OURS, 1);
    let (a, b) = (live(&ours, 1), live(&ours, 2));
    let plane = Plane::Data;
    b.set_removed(BTreeSet::from([NodeId(1)]));
    refused(shake(client(&a, plane), server(&b, plane), &dial(2)), "server", "NodeRemoved");
    refused(shake(client(&b, plane), server(&a, plane), &dial(1)), "client", "NodeRemoved");
    b.set_removed(BTreeSet::new());
    assert!(shake(client(&a, plane), server(&b, plane), &dial(2)).is_ok());
}

#[test]
fn strangers_reach_only_the_control_plane() {
    let ours = authority(OURS, 1);
    let us = live(&ours, 1);
    let stranger = || stranger_config(&token(&ours), &clock(NOW)).unwrap();
    let met = shake(stranger(), server(&us, Plane::Control), "anybody.invalid").unwrap();
    assert_eq!(met.server_saw, None);
    assert_eq!(identity_of(&met.client_saw[0]).unwrap().node, NodeId(1));
    for plane in [Plane::Data, Plane::Consensus] {
        refused(shake(stranger(), server(&us, plane), "anybody.invalid"), "server", "NoApplicationProtocol");
        let mut disguised = stranger();
        disguised.alpn_protocols = alpn(plane);
        refused(shake(disguised, server(&us, plane), "anybody.invalid"), "server", "NoCertificatesPresented");
    }
}

#[test]
fn a_joining_node_believes_only_the_pinned_authority() {
    let (ours, impostor, foreign) = (authority(OURS, 1), authority(OURS, 9), authority(THEIRS, 1));
    let join = |token: &JoinToken, server_live: &Arc<LiveCredentials>| {
        shake(stranger_config(token, &clock(NOW)).unwrap(), server(server_live, Plane::Control), "x.invalid")
    };
    assert!(join(&token(&ours), &live(&ours, 1)).is_ok());
    refused(join(&token(&ours), &live(&impostor, 1)), "client", "WrongAuthority");
    refused(join(&token(&ours), &live(&foreign, 1)), "client", "WrongAuthority");
    let mixed = JoinToken { cluster: THEIRS, ..token(&ours) };
    refused(join(&mixed, &live(&ours, 1)), "client", "ForeignCluster");
    let storage = LiveCredentials::new(made(&ours, &[&ours], 3, Roles::only(Role::Storage), NOW)).unwrap();
    refused(join(&token(&ours), &storage), "client", "NotACoordinator");
    // The pinned root in the chain of somebody it did not sign: shown, but no proof.
    let pretender = made(&impostor, &[&impostor, &ours], 1, Roles::BOTH, NOW);
    refused(join(&token(&ours), &LiveCredentials::new(pretender).unwrap()), "client", "BadSignature");
    let late = stranger_config(&token(&ours), &clock(NOW + (NODE_DAYS + 1) * DAY)).unwrap();
    refused(shake(late, server(&live(&ours, 1), Plane::Control), "x.invalid"), "client", "Expired");
}

#[test]
fn two_roots_hold_at_once_while_a_ca_is_exchanged() {
    let (old, new) = (authority(OURS, 1), authority(OURS, 2));
    let both = [&new, &old];
    let plane = Plane::Consensus;
    let of_old = LiveCredentials::new(made(&old, &both, 1, Roles::BOTH, NOW)).unwrap();
    let of_new = LiveCredentials::new(made(&new, &both, 2, Roles::BOTH, NOW)).unwrap();
    assert!(shake(client(&of_old, plane), server(&of_new, plane), &dial(2)).is_ok());
    assert!(shake(client(&of_new, plane), server(&of_old, plane), &dial(1)).is_ok());
    // The old root is taken away from one that has the new certificate already.
    of_new.replace(made(&new, &[&new], 2, Roles::BOTH, NOW)).unwrap();
    refused(shake(client(&of_old, plane), server(&of_new, plane), &dial(2)), "server", "BadSignature");
    // A token that pins either root gets in where the chain shows both and the pinned one has signed.
    let join = |root: &ClusterAuthority, to: &Arc<LiveCredentials>| {
        shake(stranger_config(&token(root), &clock(NOW)).unwrap(), server(to, Plane::Control), "x.invalid")
    };
    assert!(join(&old, &of_old).is_ok());
    assert!(join(&new, &of_new).is_ok());
    assert!(join(&new, &of_old).is_err());
}

#[test]
fn renewed_credentials_take_effect_without_restart() {
    let ours = authority(OURS, 1);
    let (a, b) = (live(&ours, 1), live(&ours, 2));
    let later = NOW + 80 * DAY;
    let after_end = NOW + 95 * DAY;
    // Settings made once, as a running transport has them.
    let client = client_config(&a, Plane::Data, &clock(after_end)).unwrap();
    let server = server_config(&b, Plane::Data, &clock(after_end)).unwrap();
    refused(shake(client.clone(), server.clone(), &dial(2)), "client", "Expired");
    b.replace(made(&ours, &[&ours], 2, Roles::BOTH, later)).unwrap();
    refused(shake(client.clone(), server.clone(), &dial(2)), "server", "Expired");
    a.replace(made(&ours, &[&ours], 1, Roles::BOTH, later)).unwrap();
    assert!(shake(client, server, &dial(2)).is_ok());

    let other_node = a.replace(made(&ours, &[&ours], 2, Roles::BOTH, later));
    assert!(matches!(other_node, Err(TrustError::WrongNode { .. })));
    let foreign = authority(THEIRS, 1);
    let other_cluster = a.replace(made(&foreign, &[&foreign], 1, Roles::BOTH, later));
    assert!(matches!(other_cluster, Err(TrustError::ForeignCluster { .. })));
    assert_eq!(a.identity().node, NodeId(1));
}

/// What our own CA would never sign, signed with its key all the same: a coordinator that went wrong, or a bug.
#[test]
fn certificates_of_our_ca_that_say_something_else_are_refused() {
    use rcgen::{CertificateParams, ExtendedKeyUsagePurpose, Issuer, KeyPair, SanType};
    let ours = authority(OURS, 1);
    let us = live(&ours, 1);
    let uri = |cluster, node| identity_uri(&identity(cluster, node, Roles::BOTH)).unwrap();
    let dns = |cluster, node| node_name(cluster, NodeId(node));
    let both = [ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    let cases = [
        ("fine", vec![uri(OURS, 2)], vec![dns(OURS, 2)], both.to_vec(), None),
        ("another cluster", vec![uri(THEIRS, 2)], vec![dns(THEIRS, 2)], both.to_vec(), Some("ForeignCluster")),
        ("no identity", vec![], vec![dns(OURS, 2)], both.to_vec(), Some("Malformed")),
        ("no name", vec![uri(OURS, 2)], vec![], both.to_vec(), Some("Malformed")),
        ("two identities", vec![uri(OURS, 2), uri(OURS, 1)], vec![dns(OURS, 2)], both.to_vec(), Some("Malformed")),
        ("two names", vec![uri(OURS, 2)], vec![dns(OURS, 2), dns(OURS, 1)], both.to_vec(), Some("Malformed")),
        ("names of two nodes", vec![uri(OURS, 1)], vec![dns(OURS, 2)], both.to_vec(), Some("Malformed")),
        ("another form", vec!["holdfast://2/x".to_owned()], vec![dns(OURS, 2)], both.to_vec(), Some("Malformed")),
        ("for servers only", vec![uri(OURS, 2)], vec![dns(OURS, 2)], both[..1].to_vec(), Some("Purpose")),
    ];
    for (what, uris, names, usages, expected) in cases {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.not_before = rcgen::date_time_ymd(2020, 1, 1);
        params.not_after = rcgen::date_time_ymd(2090, 1, 1);
        params.subject_alt_names.extend(uris.iter().map(|uri| SanType::URI(uri.as_str().try_into().unwrap())));
        params.subject_alt_names.extend(names.iter().map(|dns| SanType::DnsName(dns.as_str().try_into().unwrap())));
        params.extended_key_usages = usages;
        let signing = KeyPair::from_pem(&ours.key_pem()).unwrap();
        let issuer = Issuer::from_ca_cert_pem(&ours.certificate_pem(), signing).unwrap();
        let certificate = params.signed_by(&key, &issuer).unwrap();
        let der = rustls::pki_types::PrivatePkcs8KeyDer::from(key.serialize_der()).into();
        let signer = rustls::crypto::aws_lc_rs::sign::any_supported_type(&der).unwrap();
        let shown = careless::Shows(Arc::new(rustls::sign::CertifiedKey::new(vec![certificate.der().clone()], signer)));

        let mut client = careless::client(shown.clone());
        client.alpn_protocols = alpn(Plane::Data);
        let as_client = shake(client, server(&us, Plane::Data), &dial(1));
        let mut config = server(&us, Plane::Data);
        config.cert_resolver = Arc::new(shown);
        let name = names.first().cloned().unwrap_or_else(|| dial(2));
        let as_server = shake(client_of(&us), config, &name);
        match expected {
            None => assert!(as_client.is_ok() && as_server.is_ok(), "{what}"),
            Some("Purpose") => refused(as_client, "server", "Purpose"),
            Some(because) => {
                refused(as_client, "server", because);
                let seen = as_server.err().unwrap_or_default();
                assert!(seen.starts_with("client"), "{what}: {seen}");
            }
        }
    }
}

fn client_of(live: &Arc<LiveCredentials>) -> ClientConfig {
    client(live, Plane::Data)
}

/// A client that believes everybody and shows what it is told to.
mod careless {
    use rustls::client::ResolvesClientCert;
    use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
    use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
    use rustls::server::{ClientHello, ResolvesServerCert};
    use rustls::sign::CertifiedKey;
    use rustls::{ClientConfig, DigitallySignedStruct, Error, SignatureScheme};
    use std::sync::Arc;

    #[derive(Debug)]
    struct Anybody;

    /// Believes everybody, shows what `resolver` gives.
    pub(super) fn client(resolver: impl ResolvesClientCert + 'static) -> ClientConfig {
        ClientConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Anybody))
            .with_client_cert_resolver(Arc::new(resolver))
    }

    #[derive(Clone, Debug)]
    pub(super) struct Shows(pub(super) Arc<CertifiedKey>);

    impl ResolvesClientCert for Shows {
        fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
            Some(self.0.clone())
        }
        fn has_certs(&self) -> bool {
            true
        }
    }

    impl ResolvesServerCert for Shows {
        fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
            Some(self.0.clone())
        }
    }

    impl ServerCertVerifier for Anybody {
        fn verify_server_cert(
            &self,
            _: &CertificateDer<'_>,
            _: &[CertificateDer<'_>],
            _: &ServerName<'_>,
            _: &[u8],
            _: UnixTime,
        ) -> Result<ServerCertVerified, Error> {
            Ok(ServerCertVerified::assertion())
        }

        fn verify_tls12_signature(
            &self,
            _: &[u8],
            _: &CertificateDer<'_>,
            _: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            Ok(HandshakeSignatureValid::assertion())
        }

        fn verify_tls13_signature(
            &self,
            _: &[u8],
            _: &CertificateDer<'_>,
            _: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            Ok(HandshakeSignatureValid::assertion())
        }

        fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
            vec![SignatureScheme::ED25519, SignatureScheme::ECDSA_NISTP256_SHA256]
        }
    }
}
