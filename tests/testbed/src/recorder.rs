//! A server in front of a Vault that writes down every request: which header went with which. It answers some of
//! them itself, passes the others on, and serves as a forward proxy (absolute URLs, `CONNECT`) too.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context as _, Result, bail};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};

/// A request as it came.
#[derive(Clone, Debug, Default)]
pub struct Recorded {
    /// For example `GET`.
    pub method: String,
    /// Path, absolute URL, or host and port, as the client wrote it.
    pub target: String,
    /// Names in small letters, in the order in which they came.
    pub headers: Vec<(String, String)>,
    body: Vec<u8>,
}

impl Recorded {
    /// All values of a header, whose name is given in small letters.
    #[must_use]
    pub fn all(&self, name: &str) -> Vec<&str> {
        let found = self.headers.iter().filter(|(known, _)| known == name);
        found.map(|(_, value)| value.as_str()).collect()
    }

    /// The first value of a header.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.all(name).first().copied()
    }

    /// Path and query, without scheme and host.
    #[must_use]
    pub fn path(&self) -> &str {
        let rest = self
            .target
            .split_once("://")
            .map_or(self.target.as_str(), |(_, rest)| rest);
        rest.find('/').map_or("/", |slash| &rest[slash..])
    }
}

/// What the recorder says to a request.
#[derive(Clone, Debug)]
pub enum Say {
    /// What the upstream says.
    Pass,
    /// What the upstream says to this path.
    PassAs(String),
    /// What the upstream says, with these header lines.
    PassWith(String),
    /// Status, header lines and body of its own.
    This(u16, String, String),
}

type Rule = dyn Fn(&Recorded) -> Say + Send + Sync;

/// The server, on loopback.
pub struct Recorder {
    address: SocketAddr,
    seen: Arc<Mutex<Vec<Recorded>>>,
    task: tokio::task::JoinHandle<()>,
}

impl Recorder {
    /// Starts one in front of an address; `CONNECT` leads to `tunnel`, whatever it names.
    ///
    /// # Errors
    /// If no port is free.
    pub async fn start(
        upstream: SocketAddr,
        tunnel: SocketAddr,
        rule: impl Fn(&Recorded) -> Say + Send + Sync + 'static,
    ) -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let seen = Arc::<Mutex<Vec<Recorded>>>::default();
        let (log, rule): (_, Arc<Rule>) = (seen.clone(), Arc::new(rule));
        let task = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let (log, rule) = (log.clone(), rule.clone());
                tokio::spawn(async move { serve(client, upstream, tunnel, &log, rule.as_ref()).await });
            }
        });
        Ok(Self { address, seen, task })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// All requests so far.
    #[must_use]
    pub fn seen(&self) -> Vec<Recorded> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(
    client: TcpStream,
    upstream: SocketAddr,
    tunnel: SocketAddr,
    log: &Mutex<Vec<Recorded>>,
    rule: &Rule,
) -> Result<()> {
    let mut client = BufReader::new(client);
    while let Some(request) = read(&mut client).await? {
        log.lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(request.clone());
        if request.method == "CONNECT" {
            let mut server = TcpStream::connect(tunnel).await?;
            client.write_all(b"HTTP/1.1 200 Connected\r\n\r\n").await?;
            tokio::io::copy_bidirectional(&mut client, &mut server).await?;
            return Ok(());
        }
        let answer = match rule(&request) {
            Say::This(status, headers, body) => {
                let length = body.len();
                format!(
                    "HTTP/1.1 {status} Answer\r\n{}Content-Length: {length}\r\n\r\n{body}",
                    lines(&headers)
                )
                .into_bytes()
            }
            Say::Pass => pass(upstream, &request, request.path(), "").await?,
            Say::PassAs(path) => pass(upstream, &request, &path, "").await?,
            Say::PassWith(headers) => pass(upstream, &request, request.path(), &headers).await?,
        };
        client.write_all(&answer).await?;
        if request.header("connection") == Some("close") {
            break;
        }
    }
    Ok(())
}

fn lines(headers: &str) -> String {
    headers.lines().map(|line| format!("{line}\r\n")).collect()
}

async fn line(from: &mut BufReader<TcpStream>) -> Result<String> {
    let mut line = String::new();
    from.read_line(&mut line).await?;
    Ok(line.trim_end().to_string())
}

/// The next request; `None` if the client has gone.
async fn read(client: &mut BufReader<TcpStream>) -> Result<Option<Recorded>> {
    let first = line(client).await?;
    let mut words = first.split(' ');
    let (Some(method), Some(target)) = (words.next().filter(|word| !word.is_empty()), words.next()) else {
        return Ok(None);
    };
    let mut request = Recorded {
        method: method.into(),
        target: target.into(),
        ..Recorded::default()
    };
    loop {
        let line = line(client).await?;
        if line.is_empty() {
            break;
        }
        let (name, value) = line.split_once(':').context("no header line")?;
        request.headers.push((name.to_lowercase(), value.trim().into()));
    }
    if request.header("transfer-encoding").is_some() {
        bail!("requests in chunks are not served");
    }
    let length = request.header("content-length").map_or(Ok(0), str::parse)?;
    request.body = vec![0; length];
    client.read_exact(&mut request.body).await?;
    Ok(Some(request))
}

/// The upstream's answer, with further header lines after its first line.
async fn pass(upstream: SocketAddr, request: &Recorded, path: &str, further: &str) -> Result<Vec<u8>> {
    let mut server = TcpStream::connect(upstream).await?;
    let mut head = format!("{} {path} HTTP/1.1\r\nConnection: close\r\n", request.method);
    for (name, value) in &request.headers {
        // The last one is for Vault Enterprise; others refuse it.
        if name != "connection" && !name.starts_with("proxy-") && name != "x-vault-inconsistent" {
            head += &format!("{name}: {value}\r\n");
        }
    }
    server.write_all(format!("{head}\r\n").as_bytes()).await?;
    server.write_all(&request.body).await?;
    let mut answer = Vec::new();
    server.read_to_end(&mut answer).await?;
    let end = answer
        .windows(2)
        .position(|two| two == b"\r\n")
        .context("no answer")?
        + 2;
    // The client's connection goes on.
    let rest = String::from_utf8_lossy(&answer[end..]).replacen("Connection: close\r\n", "", 1);
    let mut whole = answer[..end].to_vec();
    whole.extend(lines(further).into_bytes());
    whole.extend(rest.into_bytes());
    Ok(whole)
}
