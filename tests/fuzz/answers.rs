//! Changed answers to what is asked about a token and about the server's health, over a real connection.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, LazyLock, Mutex};

use keyferry::secret::SecretBytes;
use keyferry::vault::auth::{look_up, renew};
use keyferry::vault::consistency::{Consistency, States};
use keyferry::vault::health::probe;
use keyferry::vault::transport::{Connections, Server, Token, Transport};
use proptest::prelude::*;
use tokio::runtime::Runtime;

use crate::mutate::{Changed, apply, changed};
use crate::targets::{config, timed};

const CANARY: &str = "hvs.CAESIcanary";
const BODIES: &[&str] = &[
    r#"{"auth":{"client_token":"hvs.CAESIcanary","accessor":"a","policies":["p"],"lease_duration":3600,"renewable":true,"token_type":"service","num_uses":0}}"#,
    r#"{"auth":{"client_token":"hvs.CAESIcanary","lease_duration":18446744073709551615,"renewable":false,"token_type":"batch","num_uses":3}}"#,
    r#"{"data":{"id":"hvs.CAESIcanary","ttl":3600,"renewable":true,"policies":["p"]}}"#,
    r#"{"errors":["1 error occurred:\n\t* permission denied hvs.CAESIcanary\n\n"]}"#,
    r#"{"auth":null,"warnings":["hvs.CAESIcanary"]}"#,
    r#"{"initialized":true,"sealed":true,"standby":true,"version":"2.0.0"}"#,
    r#"{"ha_enabled":true,"is_self":false,"leader_address":"https://vault-0:8200","leader_cluster_address":""}"#,
    r#"{"ha_enabled":true,"is_self":false,"leader_address":"hvs.CAESIcanary"}"#,
    "<html><body>hvs.CAESIcanary</body></html>",
];
const RETRY_AFTER: &[&str] = &[
    "1",
    "0",
    "18446744073709551615",
    "-1",
    "1.5",
    "Wed, 21 Oct 2015 07:28:00 GMT",
    "",
];
const STATES: &[&str] = &[
    "djE6YToxOjI6aA==",
    "djE6YToxODQ0Njc0NDA3MzcwOTU1MTYxNToyOmg=",
    "!",
    "",
];

/// What is answered next.
static ANSWER: Mutex<Vec<u8>> = Mutex::new(Vec::new());
static SERVER: LazyLock<String> = LazyLock::new(|| {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            // Whoever asked may have gone.
            stream.and_then(answer).ok();
        }
    });
    format!("http://{address}")
});
static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    builder.worker_threads(1).enable_all().build().unwrap()
});

fn answer(mut stream: TcpStream) -> std::io::Result<()> {
    let mut request: Vec<u8> = Vec::new();
    let mut part = [0; 4096];
    while !request.windows(4).any(|end| end == b"\r\n\r\n") {
        let size = stream.read(&mut part)?;
        if size == 0 {
            return Ok(());
        }
        request.extend(&part[..size]);
    }
    let answer = ANSWER.lock().unwrap().clone();
    stream.write_all(&answer)
}

/// A header's value: bytes that end it are left out.
fn header(change: &Changed, seeds: &[&str]) -> Vec<u8> {
    let mut made = apply(change, seeds);
    made.retain(|byte| *byte >= b' ' && *byte != 0x7f);
    made
}

fn check(status: u16, body: &Changed, retry_after: &Changed, state: &Changed) -> Result<(), TestCaseError> {
    let body = apply(body, BODIES);
    let head = format!(
        "HTTP/1.1 {status} Answer\r\nConnection: close\r\nContent-Length: {}\r\n",
        body.len()
    );
    let parts: [&[u8]; 7] = [
        head.as_bytes(),
        b"Retry-After: ",
        &header(retry_after, RETRY_AFTER),
        b"\r\nX-Vault-Index: ",
        &header(state, STATES),
        b"\r\n\r\n",
        &body,
    ];
    *ANSWER.lock().unwrap() = parts.concat();
    keyferry_testbed::install_tls_provider();
    let server = Server {
        url: SERVER.clone(),
        consistency: Consistency::Forwarded,
        ..Server::default()
    };
    let transport = Transport::new(&server, Connections::Fresh, Arc::new(States::default()));
    let transport = Arc::new(transport.unwrap());
    let token = Token::new(&SecretBytes::from(CANARY)).unwrap();
    let said = timed(|| {
        RUNTIME.block_on(async {
            let renewed = renew(transport.clone(), None, token.clone()).await;
            let known = look_up(transport.clone(), None, token.clone()).await;
            let errors =
                [renewed.err(), known.err()].map(|error| error.map(|error| format!("{error} {error:?}")));
            (errors, format!("{:?}", probe(&transport).await))
        })
    })?;
    let said = format!("{said:?}");
    prop_assert!(!said.contains(&CANARY[4..]), "{said}");
    Ok(())
}

proptest! {
    #![proptest_config(config(200))]

    #[test]
    fn any_answer_about_a_token_or_the_health_gets_a_meaning_and_is_not_shown(
        status in prop::sample::select(vec![200_u16, 204, 400, 403, 404, 429, 472, 473, 474, 500, 501, 503]),
        body in changed(), retry_after in changed(), state in changed(),
    ) {
        check(status, &body, &retry_after, &state)?;
    }
}
