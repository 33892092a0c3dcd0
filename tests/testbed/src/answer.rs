//! Answers that no Vault would give, byte by byte.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::sleep;

/// Long enough for the other side to have read what was sent.
const READ_BY_NOW: Duration = Duration::from_millis(100);
/// No request of the operator's is longer.
const REQUEST_MAX: usize = 1 << 20;

/// What is answered to the requests of some paths.
#[derive(Clone, Debug)]
pub struct Answer {
    method: Option<String>,
    path: String,
    bytes: Vec<u8>,
    end: End,
}

/// What comes after the bytes.
#[derive(Clone, Copy, Debug)]
pub enum End {
    /// The connection is closed.
    Close,
    /// The connection is reset.
    Reset,
    /// Nothing, for as long as the other side waits.
    Hang,
}

impl Answer {
    /// These bytes to every request whose path begins with this.
    #[must_use]
    pub fn raw(path: &str, bytes: impl Into<Vec<u8>>, end: End) -> Self {
        let (path, bytes) = (path.to_owned(), bytes.into());
        Self {
            method: None,
            path,
            bytes,
            end,
        }
    }

    /// The same to requests of one method only.
    #[must_use]
    pub fn only(self, method: &str) -> Self {
        let method = Some(method.to_owned());
        Self { method, ..self }
    }

    fn is_for(&self, method: &[u8], path: &[u8]) -> bool {
        let same = |known: &String| known.as_bytes() == method;
        self.method.as_ref().is_none_or(same) && path.starts_with(self.path.as_bytes())
    }

    /// A whole answer of HTTP: status, header lines, body.
    #[must_use]
    pub fn http(path: &str, status: u16, headers: &str, body: impl AsRef<[u8]>) -> Self {
        let body = body.as_ref();
        let lines: String = headers.lines().map(|line| format!("{line}\r\n")).collect();
        let length = body.len();
        let head = format!("HTTP/1.1 {status} Answer\r\n{lines}Content-Length: {length}\r\n\r\n");
        Self::raw(path, [head.as_bytes(), body].concat(), End::Close)
    }

    async fn give(&self, mut client: TcpStream) -> std::io::Result<()> {
        client.write_all(&self.bytes).await?;
        match self.end {
            End::Close => client.shutdown().await,
            End::Reset => {
                sleep(READ_BY_NOW).await;
                client.set_zero_linger()
            }
            End::Hang => client.read(&mut [0; 1]).await.map(drop),
        }
    }
}

/// Answers one request, by the first answer for its path; without one it is passed on.
pub(crate) async fn serve(
    mut client: TcpStream,
    upstream: SocketAddr,
    answers: &[Answer],
) -> std::io::Result<()> {
    let Some(request) = read_request(&mut client).await? else {
        return Ok(());
    };
    let mut words = request.split(|byte| *byte == b' ');
    let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    match answers.iter().find(|answer| answer.is_for(method, path)) {
        Some(answer) => answer.give(client).await,
        None => pass_on(client, upstream, &request).await,
    }
}

/// One request, whole; `None` if the other side closed before it was.
async fn read_request(client: &mut TcpStream) -> std::io::Result<Option<Vec<u8>>> {
    let mut request = Vec::new();
    while request.len() < REQUEST_MAX {
        if client.read_buf(&mut request).await? == 0 {
            return Ok(None);
        }
        if let Some(head) = end_of_head(&request)
            && request.len() >= head + body_length(&request[..head])
        {
            return Ok(Some(request));
        }
    }
    Ok(None)
}

fn end_of_head(request: &[u8]) -> Option<usize> {
    let end = request.windows(4).position(|window| window == b"\r\n\r\n")?;
    Some(end + 4)
}

fn body_length(head: &[u8]) -> usize {
    let head = String::from_utf8_lossy(head).to_ascii_lowercase();
    let lines = head
        .lines()
        .filter_map(|line| line.strip_prefix("content-length:"));
    lines
        .filter_map(|length| length.trim().parse().ok())
        .next()
        .unwrap_or(0)
}

/// One request a connection, so that the path of the next one is seen too.
async fn pass_on(mut client: TcpStream, upstream: SocketAddr, request: &[u8]) -> std::io::Result<()> {
    let mut server = TcpStream::connect(upstream).await?;
    let line = request
        .iter()
        .position(|byte| *byte == b'\n')
        .map_or(0, |end| end + 1);
    let (first, rest) = request.split_at(line);
    server
        .write_all(&[first, b"Connection: close\r\n", rest].concat())
        .await?;
    tokio::io::copy(&mut server, &mut client).await?;
    client.shutdown().await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proxy::{Mode, Proxy};
    use anyhow::Result;

    async fn get(proxy: &Proxy, path: &str) -> Result<String> {
        let mut stream = TcpStream::connect(proxy.address()).await?;
        stream
            .write_all(format!("POST {path} HTTP/1.1\r\nContent-Length: 2\r\n\r\nhi").as_bytes())
            .await?;
        let mut text = String::new();
        stream.read_to_string(&mut text).await?;
        Ok(text)
    }

    #[tokio::test]
    async fn a_path_of_its_own_is_answered_byte_by_byte_and_the_others_are_passed_on() -> Result<()> {
        let upstream = Proxy::start(([127, 0, 0, 1], 1).into()).await?;
        upstream.set(Mode::Answers(vec![Answer::http("", 200, "", "upstream")]));
        let proxy = Proxy::start(upstream.address()).await?;
        proxy.set(Mode::Answers(vec![
            Answer::raw(
                "/half",
                "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf",
                End::Close,
            ),
            Answer::raw("/reset", "HTTP/1.1 200 OK\r\n", End::Reset),
            Answer::http("/other", 200, "", "to GET").only("GET"),
            Answer::http("/other", 200, "", "to POST").only("POST"),
        ]));
        assert!(get(&proxy, "/whole").await?.ends_with("\r\n\r\nupstream"));
        assert!(get(&proxy, "/half/x").await?.ends_with("\r\n\r\nhalf"));
        assert!(get(&proxy, "/reset").await.is_err());
        assert!(get(&proxy, "/other").await?.ends_with("to POST"));
        Ok(())
    }
}
