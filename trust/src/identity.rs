//! How a node's identity stands in its certificate, and how it is read: strictly.
//!
//! A certificate carries two subject alternative names and no other: a URI with all of the identity, and the DNS name
//! that clients demand of the server they dial. **Invariant:** an identity has one text, and any other text is refused
//! (`identities_read_what_they_print`, `any_changed_byte_is_another_identity_or_none`).

use crate::TrustError;
use holdfast_proto::cluster::{NodeIdentity, Roles};
use holdfast_proto::{ClusterId, NodeId};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

/// Longest name of a region or zone: 64 bytes, percent-encoded 192, so the URI stays below 512.
pub const PLACE_BYTES_MAX: usize = 64;
/// Longest certificate that is looked at: ours have below 1 KiB.
const CERTIFICATE_BYTES_MAX: usize = 16 << 10;
/// What begins the URI; the number is the version of its form.
const SCHEME: &str = "holdfast://1/";
/// Everything but what RFC 3986 calls unreserved.
const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// Whether a region or zone may be called so: 1..=64 bytes, no control character, no space at either end.
pub fn check_place(name: &str) -> Result<(), TrustError> {
    let refused = |reason| Err(TrustError::PlaceName { given: name.chars().take(PLACE_BYTES_MAX).collect(), reason });
    match name {
        "" => refused("it is empty"),
        _ if name.len() > PLACE_BYTES_MAX => refused("it has more than 64 bytes"),
        _ if name.chars().any(char::is_control) => refused("it has control characters"),
        _ if name.trim() != name => refused("it begins or ends with a space"),
        _ => Ok(()),
    }
}

/// The DNS name in the certificate of a node: what a client demands of the server it dials.
pub fn node_name(cluster: ClusterId, node: NodeId) -> String {
    format!("n{node}.{cluster}.holdfast")
}

/// `holdfast://1/CLUSTER/NODE/ROLES/REGION/ZONE`, region and zone percent-encoded.
pub fn identity_uri(identity: &NodeIdentity) -> Result<String, TrustError> {
    check_place(&identity.region)?;
    check_place(&identity.zone)?;
    let encode = |name| utf8_percent_encode(name, ESCAPED);
    let NodeIdentity { cluster, node, roles, region, zone } = identity;
    Ok(format!("{SCHEME}{cluster}/{node}/{roles}/{}/{}", encode(region), encode(zone)))
}

/// Reads exactly what `identity_uri` writes.
pub fn parse_identity_uri(uri: &str) -> Result<NodeIdentity, TrustError> {
    let refused = |reason: &str| TrustError::malformed("identity", reason);
    let rest = uri.strip_prefix(SCHEME).ok_or_else(|| refused("an unknown form or version"))?;
    let mut words = rest.split('/');
    let mut next = || words.next().ok_or_else(|| refused("cut short"));
    let identity = NodeIdentity {
        cluster: next()?.parse().map_err(|_| refused("not a cluster id"))?,
        node: NodeId(next()?.parse().map_err(|_| refused("not a node number"))?),
        roles: next()?.parse::<Roles>().map_err(|_| refused("not a list of roles"))?,
        region: decoded(next()?)?,
        zone: decoded(next()?)?,
    };
    // Whatever else would read the same (upper case, needless escapes, a leading zero, more at the end) is refused.
    if identity_uri(&identity)? != uri {
        return Err(refused("not in the one form it has"));
    }
    if identity.node.0 == 0 {
        return Err(refused("nodes are numbered from 1"));
    }
    Ok(identity)
}

fn decoded(word: &str) -> Result<String, TrustError> {
    let text = percent_decode_str(word).decode_utf8();
    Ok(text.map_err(|_| TrustError::malformed("identity", "not UTF-8"))?.into_owned())
}

pub(crate) fn parse_certificate(der: &[u8]) -> Result<X509Certificate<'_>, TrustError> {
    if der.len() > CERTIFICATE_BYTES_MAX {
        return Err(TrustError::malformed("certificate", format!("{} bytes", der.len())));
    }
    match X509Certificate::from_der(der) {
        Ok(([], certificate)) => Ok(certificate),
        Ok(_) => Err(TrustError::malformed("certificate", "bytes after its end")),
        Err(error) => Err(TrustError::malformed("certificate", error.to_string())),
    }
}

/// Who a certificate (in DER) says its holder is. Says nothing about who signed it or until when it holds: TLS has
/// verified that, or the caller must.
pub fn identity_of(certificate: &[u8]) -> Result<NodeIdentity, TrustError> {
    let certificate = parse_certificate(certificate)?;
    let refused = |reason: &str| TrustError::malformed("certificate", reason);
    if certificate.is_ca() {
        return Err(refused("an authority's, not a node's"));
    }
    let names = certificate.subject_alternative_name().map_err(|e| refused(&e.to_string()))?;
    let names = names.ok_or_else(|| refused("it names nobody"))?;
    let [GeneralName::URI(uri), GeneralName::DNSName(dns)] = names.value.general_names.as_slice() else {
        return Err(refused("its names are not a URI and a DNS name"));
    };
    let identity = parse_identity_uri(uri)?;
    if *dns != node_name(identity.cluster, identity.node) {
        return Err(refused("its two names are not of one node"));
    }
    let usage = certificate.extended_key_usage().map_err(|e| refused(&e.to_string()))?;
    if !usage.is_some_and(|usage| usage.value.client_auth && usage.value.server_auth) {
        return Err(refused("not for both ends of a connection"));
    }
    Ok(identity)
}

#[cfg(test)]
mod tests {
    use super::*;
    use holdfast_proto::cluster::Role;
    use proptest::prelude::*;

    fn identity() -> impl Strategy<Value = NodeIdentity> {
        let roles =
            prop_oneof![Just(Roles::BOTH), Just(Roles::only(Role::Storage)), Just(Roles::only(Role::Coordinator))];
        let place = any::<String>().prop_map(|text| {
            let mut name: String = text.chars().filter(|c| !c.is_control()).take(16).collect();
            name.insert(0, 'r');
            name.push('/');
            name
        });
        (any::<[u8; 16]>(), 1..=u64::MAX, roles, place.clone(), place).prop_map(
            |(cluster, node, roles, region, zone)| NodeIdentity {
                cluster: ClusterId(cluster),
                node: NodeId(node),
                roles,
                region,
                zone,
            },
        )
    }

    proptest! {
        #[test]
        fn identities_read_what_they_print(identity in identity()) {
            let uri = identity_uri(&identity).unwrap();
            prop_assert!(uri.is_ascii());
            prop_assert!(uri.len() < 512, "{}", uri.len());
            prop_assert_eq!(parse_identity_uri(&uri), Ok(identity));
        }

        #[test]
        fn any_changed_byte_is_another_identity_or_none(identity in identity(), at: usize, byte in 0x20..0x7fu8) {
            let uri = identity_uri(&identity).unwrap();
            let mut changed = uri.clone().into_bytes();
            let at = at % changed.len();
            changed[at] = byte;
            let changed = String::from_utf8(changed).unwrap();
            if changed != uri {
                prop_assert_ne!(parse_identity_uri(&changed), Ok(identity));
            }
        }

        #[test]
        fn no_text_makes_the_reader_panic(text: String, bytes: Vec<u8>) {
            let _ = parse_identity_uri(&text);
            let _ = parse_identity_uri(&format!("{SCHEME}{text}"));
            prop_assert!(identity_of(&bytes).is_err());
        }
    }

    #[test]
    fn one_line_per_refusal() {
        let c = "01".repeat(16);
        let good = format!("holdfast://1/{c}/7/storage/eu%20west/a");
        assert_eq!(parse_identity_uri(&good).unwrap().region, "eu west");
        for bad in [
            String::new(),
            good.replace("//1/", "//2/"),
            good.replace("/7/", "/07/"),
            good.replace("/7/", "/0/"),
            good.replace("/7/", "/+7/"),
            good.replace("/7/", "/99999999999999999999/"),
            good.replace("storage", "admin"),
            good.replace("storage", "storage,coordinator"),
            good.replace("%20", " "),
            good.replace("%20", "%2D"),
            good.replace("%20", "%00"),
            good.replace("%20", "%ff"),
            good.replace("/a", "/"),
            good.replace("/a", ""),
            format!("{good}/b"),
            format!("{good}?"),
            good.replace(&c, &"0A".repeat(16)),
            good.replace("eu%20west", &"x".repeat(65)),
        ] {
            assert!(parse_identity_uri(&bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn names_of_places() {
        let longest = "é".repeat(PLACE_BYTES_MAX / 2);
        for good in ["a", "eu-west 1", "Zürich/2", longest.as_str()] {
            assert_eq!(check_place(good), Ok(()), "{good}");
        }
        for bad in ["", " a", "a ", "a\nb", "\0", &format!("{longest}x")] {
            assert!(check_place(bad).is_err(), "{bad:?}");
        }
    }
}
