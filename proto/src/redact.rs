//! Addresses without what is secret in them, for messages and logs.

/// A URL without the user information before `@`.
pub fn url(url: &str) -> String {
    let (scheme, rest) = url.split_once("://").map_or(("", url), |(s, r)| (s, r));
    // To the last `@`, whatever an unescaped password holds.
    let host = rest.rsplit_once('@').map_or(rest, |(_, host)| host);
    if scheme.is_empty() { host.to_owned() } else { format!("{scheme}://{host}") }
}

#[cfg(test)]
mod tests {
    #[test]
    fn user_and_password_are_left_out() {
        for (url, shown) in [
            ("nats://user:p@ss@host:4222", "nats://host:4222"),
            ("user:pass@host", "host"),
            ("https://host/a", "https://host/a"),
            ("", ""),
        ] {
            assert_eq!(super::url(url), shown);
        }
    }
}
