//! The programs, built from their published Go modules, once.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use sha2::{Digest as _, Sha256};

/// Oldest Go that builds the pinned modules.
const GO: (u32, u32) = (1, 26);
const KUBERNETES: &str = "-X k8s.io/component-base/version.gitVersion=v1.35.4 \
                          -X k8s.io/component-base/version.gitMajor=1 -X k8s.io/component-base/version.gitMinor=35";

struct Group {
    name: &'static str,
    packages: &'static [(&'static str, &'static str)],
    flags: &'static [&'static str],
    ldflags: &'static str,
}

const GROUPS: &[Group] = &[
    Group {
        name: "kubernetes",
        packages: &[
            ("kube-apiserver", "k8s.io/kubernetes/cmd/kube-apiserver"),
            (
                "kube-controller-manager",
                "k8s.io/kubernetes/cmd/kube-controller-manager",
            ),
            ("kubectl", "k8s.io/kubernetes/cmd/kubectl"),
        ],
        flags: &[],
        ldflags: KUBERNETES,
    },
    Group {
        name: "etcd",
        packages: &[("etcd", "go.etcd.io/etcd/server/v3")],
        flags: &[],
        ldflags: "",
    },
    Group {
        name: "vault",
        packages: &[
            ("vault", "github.com/hashicorp/vault"),
            (
                "vault-plugin-auth-kubernetes",
                "github.com/hashicorp/vault-plugin-auth-kubernetes/cmd/vault-plugin-auth-kubernetes",
            ),
        ],
        flags: &["-tags=minimal"],
        ldflags: "",
    },
    Group {
        name: "plugins",
        packages: &[
            (
                "vault-plugin-auth-aws",
                "github.com/hashicorp/vault/builtin/credential/aws/cmd/aws",
            ),
            (
                "vault-plugin-auth-ldap",
                "github.com/hashicorp/vault/builtin/credential/ldap/cmd/ldap",
            ),
        ],
        flags: &[],
        ldflags: "",
    },
    Group {
        name: "ldap",
        packages: &[("ldap", "keyferry.dev/testbed/ldap")],
        flags: &[],
        ldflags: "",
    },
    Group {
        name: "helm",
        packages: &[("helm", "helm.sh/helm/v3/cmd/helm")],
        flags: &[],
        ldflags: "",
    },
];

/// Where the programs are.
#[derive(Clone, Debug)]
pub struct Programs {
    folders: Vec<PathBuf>,
}

impl Programs {
    /// Builds what is missing in the cache (`KEYFERRY_TESTBED_CACHE`, else below the user's cache
    /// folder), with progress on standard error. Processes that want the same at once take turns.
    ///
    /// # Errors
    /// If Go is missing or too old, or a build fails.
    pub fn ensure() -> Result<Self> {
        let cache = cache()?;
        fs::create_dir_all(&cache).with_context(|| format!("cannot make {}", cache.display()))?;
        let mut folders = Vec::new();
        for group in GROUPS {
            let source = Path::new(env!("CARGO_MANIFEST_DIR"))
                .join("programs")
                .join(group.name);
            let folder = cache.join(format!("{}-{}", group.name, key(&source, group)?));
            if !complete(&folder, group) {
                let lock = File::create(cache.join(format!("{}.lock", group.name)))?;
                lock.lock()?;
                if !complete(&folder, group) {
                    build(group, &source, &folder)?;
                }
            }
            folders.push(folder);
        }
        Ok(Self { folders })
    }

    /// The path of one program.
    ///
    /// # Errors
    /// If there is none of that name.
    pub fn path(&self, name: &str) -> Result<PathBuf> {
        let paths = self.folders.iter().map(|folder| folder.join(name));
        paths
            .into_iter()
            .find(|path| path.exists())
            .with_context(|| format!("no program {name} in the testbed's cache"))
    }

    /// The folders, to be put into `PATH`.
    #[must_use]
    pub fn folders(&self) -> &[PathBuf] {
        &self.folders
    }
}

/// The folder that outlives `target/`.
///
/// # Errors
/// If neither the variable nor the user's cache folder is known.
pub fn cache() -> Result<PathBuf> {
    if let Some(folder) = std::env::var_os("KEYFERRY_TESTBED_CACHE").filter(|folder| !folder.is_empty()) {
        return Ok(folder.into());
    }
    let user = dirs::cache_dir().context("no cache folder is known; set KEYFERRY_TESTBED_CACHE")?;
    Ok(user.join("keyferry-testbed"))
}

/// A change of the pinned modules, of our own program, or of how they are built, makes another folder.
fn key(source: &Path, group: &Group) -> Result<String> {
    let mut hash = Sha256::new();
    for file in ["go.mod", "go.sum", "main.go"] {
        let path = source.join(file);
        if file != "main.go" || path.exists() {
            hash.update(fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?);
        }
    }
    hash.update(group.ldflags);
    group.flags.iter().for_each(|flag| hash.update(flag));
    Ok(hash
        .finalize()
        .iter()
        .take(8)
        .map(|byte| format!("{byte:02x}"))
        .collect())
}

fn complete(folder: &Path, group: &Group) -> bool {
    group
        .packages
        .iter()
        .all(|(program, _)| folder.join(program).exists())
}

fn build(group: &Group, source: &Path, folder: &Path) -> Result<()> {
    check_go()?;
    let work = folder.with_extension(format!("building-{}", std::process::id()));
    fs::create_dir_all(&work)?;
    for (program, package) in group.packages {
        let began = std::time::Instant::now();
        eprintln!("testbed: building {program} from its Go module (once; minutes on a cold cache) …");
        let status = Command::new("go")
            .current_dir(source)
            .env("CGO_ENABLED", "0")
            .args(["build", "-trimpath", "-buildvcs=false"])
            .args(group.flags)
            .arg(format!("-ldflags=-s -w {}", group.ldflags))
            .arg("-o")
            .arg(work.join(program))
            .arg(package)
            .status()
            .context("cannot run go")?;
        if !status.success() {
            bail!("go could not build {package}; see its messages above");
        }
        eprintln!("testbed: built {program} in {:.0?}", began.elapsed());
    }
    let _ = fs::remove_dir_all(folder);
    fs::rename(&work, folder).with_context(|| format!("cannot move the programs to {}", folder.display()))
}

fn check_go() -> Result<()> {
    let needed = format!(
        "the testbed builds its programs with Go {}.{} or newer; install it and put it into PATH",
        GO.0, GO.1
    );
    let output = Command::new("go")
        .args(["env", "GOVERSION"])
        .output()
        .with_context(|| needed.clone())?;
    let text = String::from_utf8_lossy(&output.stdout);
    let mut numbers = text
        .trim()
        .trim_start_matches("go")
        .split(['.', 'r', 'b', '-'])
        .map(|n| n.parse::<u32>().unwrap_or(0));
    let found = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    if found < GO {
        bail!("{needed}; found {}", text.trim());
    }
    Ok(())
}
