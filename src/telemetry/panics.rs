//! Panics: told by their place alone.
//!
//! What a panic says may hold a value: one about a text that is cut at a wrong byte quotes the text (promise 8).

use std::panic::{self, PanicHookInfo};

/// From now on the log says where a panic happened, and nothing of what it says.
pub fn tell_place_only() {
    panic::set_hook(Box::new(|info: &PanicHookInfo<'_>| {
        let at = info.location().map(ToString::to_string).unwrap_or_default();
        let thread = std::thread::current();
        tracing::error!(
            at,
            thread = thread.name(),
            "a panic, which is a fault of keyferry; please report where it happened"
        );
    }));
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)]
mod tests {
    use std::process::Command;

    use super::*;
    use crate::telemetry::logs::{self, LogFormat};

    const CANARY: &str = "KEYFERRY_TEST_CANARY";

    /// In a process of its own, whose standard error is what is looked at.
    #[test]
    fn a_panic_tells_its_place_and_not_what_it_says() {
        if let Ok(canary) = std::env::var(CANARY) {
            logs::init("trace", LogFormat::Text).unwrap();
            tell_place_only();
            let cut = format!("é{canary}");
            assert!(!cut[1..].is_empty());
        }
        let output = Command::new(std::env::current_exe().unwrap())
            .args([
                "--exact",
                "--nocapture",
                "telemetry::panics::tests::a_panic_tells_its_place_and_not_what_it_says",
            ])
            .env(CANARY, "c4n4ry-p4n1c")
            .output()
            .unwrap();
        let said = [output.stdout, output.stderr].concat();
        let said = String::from_utf8_lossy(&said);
        assert!(said.contains("src/telemetry/panics.rs:"), "{said}");
        assert!(!said.contains("c4n4ry-p4n1c"), "{said}");
    }
}
