//! A TCP proxy that misbehaves on demand.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Result;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::sleep;

use crate::answer::{self, Answer};

/// What the proxy does. A change cuts the connections that are open.
#[derive(Clone, Debug)]
pub enum Mode {
    /// Passes everything on.
    Pass,
    /// Passes everything on, each piece of the answer this much later.
    Delay(Duration),
    /// Closes each connection as soon as something comes over it.
    Cut,
    /// Closes each connection at once.
    Refuse,
    /// Takes everything and answers nothing.
    Hang,
    /// Passes the answer on in pieces of so many bytes, with a pause after each.
    Drip(usize, Duration),
    /// Answers every request itself: status, header lines, body.
    Http(u16, String, String),
    /// Answers requests of some paths itself, and passes the others on.
    Answers(Vec<Answer>),
    /// Each new connection goes to the next of these.
    RoundRobin(Vec<SocketAddr>),
    /// Each new connection goes to any of these, as behind a Service.
    Random(Vec<SocketAddr>),
}

/// A proxy on loopback.
pub struct Proxy {
    address: SocketAddr,
    mode: watch::Sender<Mode>,
    connections: Arc<AtomicU64>,
    task: tokio::task::JoinHandle<()>,
}

impl Proxy {
    /// Starts one in front of an address.
    ///
    /// # Errors
    /// If no port is free.
    pub async fn start(upstream: SocketAddr) -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let mode = watch::Sender::new(Mode::Pass);
        let connections = Arc::new(AtomicU64::new(0));
        let (modes, count) = (mode.clone(), connections.clone());
        let task = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let number = count.fetch_add(1, Ordering::Relaxed);
                let mut changes = modes.subscribe();
                let mode = changes.borrow_and_update().clone();
                tokio::spawn(async move {
                    tokio::select! {
                        _ = serve(client, upstream, mode, number) => {}
                        _ = changes.changed() => {}
                    }
                });
            }
        });
        Ok(Self {
            address,
            mode,
            connections,
            task,
        })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Changes what it does, from now on.
    pub fn set(&self, mode: Mode) {
        self.mode.send_replace(mode);
    }

    /// How many connections it has taken.
    #[must_use]
    pub fn connections(&self) -> u64 {
        self.connections.load(Ordering::Relaxed)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
        // Cuts what is open.
        self.mode.send_replace(Mode::Refuse);
    }
}

async fn serve(mut client: TcpStream, upstream: SocketAddr, mode: Mode, number: u64) -> std::io::Result<()> {
    match mode {
        Mode::Refuse => Ok(()),
        Mode::Cut => client.read(&mut [0; 1]).await.map(drop),
        Mode::Hang => loop {
            if client.read(&mut [0; 4096]).await? == 0 {
                return Ok(());
            }
        },
        Mode::Http(status, headers, body) => answer(client, status, &headers, &body).await,
        Mode::Answers(answers) => answer::serve(client, upstream, &answers).await,
        Mode::Pass => pass(client, upstream, usize::MAX, Duration::ZERO).await,
        Mode::Delay(pause) => pass(client, upstream, usize::MAX, pause).await,
        Mode::Drip(bytes, pause) => pass(client, upstream, bytes.max(1), pause).await,
        Mode::RoundRobin(targets) => pass_to(client, &targets, number, upstream).await,
        Mode::Random(targets) => {
            // The same numbers in each run, without order.
            let mut hasher = DefaultHasher::new();
            number.hash(&mut hasher);
            pass_to(client, &targets, hasher.finish() >> 8, upstream).await
        }
    }
}

async fn pass_to(
    client: TcpStream,
    targets: &[SocketAddr],
    number: u64,
    upstream: SocketAddr,
) -> std::io::Result<()> {
    let chosen = usize::try_from(number).unwrap_or(0) % targets.len().max(1);
    let target = targets.get(chosen).copied().unwrap_or(upstream);
    pass(client, target, usize::MAX, Duration::ZERO).await
}

async fn pass(client: TcpStream, upstream: SocketAddr, piece: usize, pause: Duration) -> std::io::Result<()> {
    let server = TcpStream::connect(upstream).await?;
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let up = async {
        tokio::io::copy(&mut from_client, &mut to_server).await?;
        to_server.shutdown().await
    };
    let down = async {
        let mut buffer = vec![0; 16 * 1024];
        loop {
            let read = from_server.read(&mut buffer).await?;
            if read == 0 {
                return to_client.shutdown().await;
            }
            for part in buffer[..read].chunks(piece.min(read)) {
                if !pause.is_zero() {
                    sleep(pause).await;
                }
                to_client.write_all(part).await?;
            }
        }
    };
    tokio::try_join!(up, down).map(drop)
}

async fn answer(mut client: TcpStream, status: u16, headers: &str, body: &str) -> std::io::Result<()> {
    let mut buffer = vec![0; 64 * 1024];
    loop {
        // Requests of the tests fit into one read; their end need not be found.
        if client.read(&mut buffer).await? == 0 {
            return Ok(());
        }
        let lines: String = headers.lines().map(|line| format!("{line}\r\n")).collect();
        let head = format!(
            "HTTP/1.1 {status} Answer\r\n{lines}Content-Length: {}\r\n\r\n",
            body.len()
        );
        client.write_all(format!("{head}{body}").as_bytes()).await?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn echo() -> Result<SocketAddr> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                tokio::spawn(async move {
                    let mut buffer = [0; 64];
                    while let Ok(read @ 1..) = stream.read(&mut buffer).await {
                        if stream.write_all(&buffer[..read]).await.is_err() {
                            return;
                        }
                    }
                });
            }
        });
        Ok(address)
    }

    #[tokio::test]
    async fn behind_a_service_every_target_gets_about_its_share_in_no_order() -> Result<()> {
        let (good, gone) = (echo().await?, "127.0.0.1:1".parse()?);
        let proxy = Proxy::start(good).await?;
        proxy.set(Mode::Random(vec![good, gone]));
        let mut seen = Vec::new();
        for _ in 0..60 {
            seen.push(say(&proxy, "hello").await.is_ok_and(|text| !text.is_empty()));
        }
        let good = seen.iter().filter(|good| **good).count();
        assert!((15..=45).contains(&good), "{good} of 60");
        let changes = seen.windows(2).filter(|pair| pair[0] != pair[1]).count();
        assert!((15..=45).contains(&changes), "{changes} changes");
        Ok(())
    }

    async fn say(proxy: &Proxy, text: &str) -> Result<String> {
        let mut stream = TcpStream::connect(proxy.address()).await?;
        stream.write_all(text.as_bytes()).await?;
        let mut buffer = [0; 256];
        let read = tokio::time::timeout(Duration::from_secs(2), stream.read(&mut buffer)).await??;
        Ok(String::from_utf8_lossy(&buffer[..read]).into_owned())
    }

    #[tokio::test]
    async fn it_passes_cuts_answers_and_hangs() -> Result<()> {
        let proxy = Proxy::start(echo().await?).await?;
        assert_eq!(say(&proxy, "hello").await?, "hello");
        proxy.set(Mode::Cut);
        assert!(say(&proxy, "hello").await.map_or(true, |text| text.is_empty()));
        proxy.set(Mode::Http(503, "Retry-After: 1".into(), "no".into()));
        assert!(
            say(&proxy, "GET / HTTP/1.1\r\n\r\n")
                .await?
                .starts_with("HTTP/1.1 503")
        );
        proxy.set(Mode::Hang);
        assert!(say(&proxy, "hello").await.is_err());
        proxy.set(Mode::Delay(Duration::from_millis(20)));
        assert_eq!(say(&proxy, "hello").await?, "hello");
        assert_eq!(proxy.connections(), 5);
        Ok(())
    }
}
