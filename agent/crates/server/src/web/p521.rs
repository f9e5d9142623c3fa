//! The curve P-521 for TLS, which *ring* does not have: for files that list `CurveP521`, and only
//! for them.

use p521::elliptic_curve::Generate as _;
use p521::elliptic_curve::sec1::ToSec1Point as _;
use p521::{PublicKey, ecdh::EphemeralSecret};
use rustls::crypto::{ActiveKeyExchange, SharedSecret, SupportedKxGroup};
use rustls::ffdhe_groups::FfdheGroup;
use rustls::{Error, NamedGroup, PeerMisbehaved};

/// ECDHE over P-521 (RFC 8422; RFC 8446, 4.2.8.2).
#[derive(Debug)]
pub(super) struct P521;

struct Exchange {
    secret: EphemeralSecret,
    public: Box<[u8]>,
}

impl SupportedKxGroup for P521 {
    fn start(&self) -> Result<Box<dyn ActiveKeyExchange>, Error> {
        let secret = EphemeralSecret::try_generate().map_err(|_| Error::FailedToGetRandomBytes)?;
        let public = secret.public_key().to_sec1_point(false).as_bytes().into();
        Ok(Box::new(Exchange { secret, public }))
    }

    fn ffdhe_group(&self) -> Option<FfdheGroup<'static>> {
        None
    }

    fn name(&self) -> NamedGroup {
        NamedGroup::secp521r1
    }
}

impl ActiveKeyExchange for Exchange {
    fn complete(self: Box<Self>, peer: &[u8]) -> Result<SharedSecret, Error> {
        // Uncompressed, as TLS requires; a point off the curve is refused.
        let public = peer.first().filter(|form| **form == 4);
        let public = public.and_then(|_| PublicKey::from_sec1_bytes(peer).ok());
        let public = public.ok_or(PeerMisbehaved::InvalidKeyShare)?;
        let shared = self.secret.diffie_hellman(&public);
        Ok(SharedSecret::from(shared.raw_secret_bytes().as_slice()))
    }

    fn ffdhe_group(&self) -> Option<FfdheGroup<'static>> {
        None
    }

    fn pub_key(&self) -> &[u8] {
        &self.public
    }

    fn group(&self) -> NamedGroup {
        NamedGroup::secp521r1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_sides_get_the_same_secret_and_a_wrong_point_none() {
        let (one, other) = (P521.start().unwrap(), P521.start().unwrap());
        let (of_one, of_other) = (one.pub_key().to_vec(), other.pub_key().to_vec());
        assert_eq!(of_one.len(), 133);
        let (one, other) = (one.complete(&of_other).unwrap(), other.complete(&of_one).unwrap());
        assert_eq!(one.secret_bytes(), other.secret_bytes());
        assert_eq!(one.secret_bytes().len(), 66);
        let mut off_the_curve = of_one.clone();
        off_the_curve[100] ^= 1;
        for wrong in [&[][..], &[4], &of_one[..132], &off_the_curve] {
            assert!(P521.start().unwrap().complete(wrong).is_err());
        }
    }
}
