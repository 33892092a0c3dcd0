//! An LDAP directory whose users have passwords.

use std::collections::BTreeMap;
use std::fs;
use std::net::TcpStream;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Result;

use crate::cluster::Cluster;
use crate::free_port;
use crate::process::Process;
use crate::wait::wait_for;

static COUNT: AtomicU64 = AtomicU64::new(1);

/// A directory; it ends with this value.
#[derive(Debug)]
pub struct Ldap {
    address: String,
    users: PathBuf,
    _process: Process,
}

impl Ldap {
    /// The branch that the users are in.
    pub const USERS: &str = "ou=people,dc=example";

    /// Starts one with these users and passwords.
    ///
    /// # Errors
    /// If it cannot be started.
    pub async fn start(cluster: &Cluster, users: &[(&str, &str)]) -> Result<Self> {
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let folder = cluster.folder().join(format!("ldap-{number}"));
        fs::create_dir_all(&folder)?;
        let address = format!("127.0.0.1:{}", free_port()?);
        let file = folder.join("users.json");
        let command = [
            cluster.programs().path("ldap")?.display().to_string(),
            address.clone(),
            file.display().to_string(),
        ];
        let ldap = Self {
            _process: Process::start("ldap", &folder, &command, &[], None)?,
            address,
            users: file,
        };
        ldap.set(users)?;
        wait_for("the LDAP server", Duration::from_secs(30), || async {
            Ok(TcpStream::connect(&ldap.address).ok())
        })
        .await?;
        Ok(ldap)
    }

    /// Its URL.
    #[must_use]
    pub fn url(&self) -> String {
        format!("ldap://{}", self.address)
    }

    /// Replaces all users and passwords.
    ///
    /// # Errors
    /// If its file cannot be written.
    pub fn set(&self, users: &[(&str, &str)]) -> Result<()> {
        let users: BTreeMap<String, &str> = users
            .iter()
            .map(|(user, password)| (format!("uid={user},{}", Self::USERS), *password))
            .collect();
        Ok(fs::write(&self.users, serde_json::to_vec(&users)?)?)
    }
}
