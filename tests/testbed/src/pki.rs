//! Certificates of a test cluster.

use anyhow::Result;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};

/// A certificate authority.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    /// Its certificate.
    pub pem: String,
}

/// A certificate and its key, as PEM.
#[derive(Clone, Debug)]
pub struct Pair {
    /// The certificate.
    pub certificate: String,
    /// Its key.
    pub key: String,
}

impl Authority {
    /// A new one.
    ///
    /// # Errors
    /// If keys cannot be made.
    pub fn new(name: &str) -> Result<Self> {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![
            KeyUsagePurpose::KeyCertSign,
            KeyUsagePurpose::DigitalSignature,
            KeyUsagePurpose::CrlSign,
        ];
        let key = KeyPair::generate()?;
        let pem = params.self_signed(&key)?.pem();
        Ok(Self {
            issuer: Issuer::new(params, key),
            pem,
        })
    }

    /// A certificate for a server on loopback.
    ///
    /// # Errors
    /// If it cannot be made.
    pub fn server(&self, names: &[&str]) -> Result<Pair> {
        let mut all: Vec<String> = names.iter().map(|name| (*name).to_string()).collect();
        all.extend(["localhost".into(), "127.0.0.1".into()]);
        let mut params = CertificateParams::new(all)?;
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        self.sign(params)
    }

    /// A certificate for a server of these names only.
    ///
    /// # Errors
    /// If it cannot be made.
    pub fn server_elsewhere(&self, names: &[&str]) -> Result<Pair> {
        let names: Vec<String> = names.iter().map(|name| (*name).to_string()).collect();
        self.sign(CertificateParams::new(names)?)
    }

    /// A certificate for a server on loopback that has expired.
    ///
    /// # Errors
    /// If it cannot be made.
    pub fn server_expired(&self) -> Result<Pair> {
        let mut params = CertificateParams::new(["127.0.0.1".into()])?;
        params.not_before = rcgen::date_time_ymd(2020, 1, 1);
        params.not_after = rcgen::date_time_ymd(2021, 1, 1);
        self.sign(params)
    }

    /// A certificate for a client.
    ///
    /// # Errors
    /// If it cannot be made.
    pub fn client(&self, name: &str, organization: Option<&str>) -> Result<Pair> {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        if let Some(organization) = organization {
            params
                .distinguished_name
                .push(DnType::OrganizationName, organization);
        }
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        self.sign(params)
    }

    /// A certificate for a client that has expired.
    ///
    /// # Errors
    /// If it cannot be made.
    pub fn client_expired(&self, name: &str) -> Result<Pair> {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        params.not_before = rcgen::date_time_ymd(2020, 1, 1);
        params.not_after = rcgen::date_time_ymd(2021, 1, 1);
        self.sign(params)
    }

    /// A certificate for a client that has a key already, as PKCS#8.
    ///
    /// # Errors
    /// If it cannot be made.
    pub fn client_of_key(&self, name: &str, key: &str) -> Result<String> {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        Ok(params.signed_by(&KeyPair::from_pem(key)?, &self.issuer)?.pem())
    }

    fn sign(&self, params: CertificateParams) -> Result<Pair> {
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &self.issuer)?;
        Ok(Pair {
            certificate: certificate.pem(),
            key: key.serialize_pem(),
        })
    }
}
