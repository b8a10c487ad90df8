//! Why a TLS handshake with the broker failed, and what to do about it.

use std::error::Error as StdError;
use std::io;

use rustls::{AlertDescription, CertificateError, Error};

/// What a failed connection says about TLS; `None` if it failed for another reason.
pub(super) fn refusal(error: &(dyn StdError + 'static)) -> Option<String> {
    let error = find(error)?;
    let advice = match error {
        // An authority that was made anew under its old name leaves a bad signature.
        Error::InvalidCertificate(
            CertificateError::UnknownIssuer | CertificateError::BadSignature,
        ) => "name the authority that signed the broker's certificate with --nats-ca (NATS_CA)",
        Error::InvalidCertificate(
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
        ) => "connect by a host name that the broker's certificate holds",
        Error::InvalidCertificate(
            CertificateError::Expired | CertificateError::ExpiredContext { .. },
        ) => "the broker needs a new certificate",
        Error::AlertReceived(
            AlertDescription::CertificateRequired
            | AlertDescription::BadCertificate
            | AlertDescription::UnknownCA
            | AlertDescription::CertificateUnknown
            | AlertDescription::HandshakeFailure,
        ) => {
            "the broker wants a client certificate that it knows: give --nats-cert and --nats-key (NATS_CERT, NATS_KEY)"
        }
        Error::InvalidMessage(_) => "does the broker at this address speak TLS?",
        _ => "check the certificates of broker and client",
    };
    Some(format!("{error}; {advice}"))
}

/// The TLS library's error, wherever in the chain of causes it is. An I/O error hides it from `source`.
fn find<'a>(error: &'a (dyn StdError + 'static)) -> Option<&'a Error> {
    let mut current = Some(error);
    while let Some(cause) = current {
        if let Some(found) = cause.downcast_ref::<Error>() {
            return Some(found);
        }
        let hidden = cause.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        if let Some(hidden) = hidden
            && let Some(found) = find(hidden)
        {
            return Some(found);
        }
        current = cause.source();
    }
    None
}
