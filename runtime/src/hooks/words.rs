//! A command line as words, as a shell splits it; nothing is expanded.

/// The words of `text`.
///
/// # Errors
/// What is missing at its end.
pub(super) fn split(text: &str) -> Result<Vec<String>, &'static str> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut rest = text.chars();
    while let Some(c) = rest.next() {
        match c {
            c if c.is_ascii_whitespace() => words.extend(word.take()),
            '\'' => {
                let word = word.get_or_insert_default();
                loop {
                    match rest.next().ok_or(UNCLOSED)? {
                        '\'' => break,
                        c => word.push(c),
                    }
                }
            }
            '"' => {
                let word = word.get_or_insert_default();
                loop {
                    match rest.next().ok_or(UNCLOSED)? {
                        '"' => break,
                        // Between double quotes a backslash is itself before anything else than these.
                        '\\' => match rest.next().ok_or(UNCLOSED)? {
                            c @ ('"' | '\\') => word.push(c),
                            c => word.extend(['\\', c]),
                        },
                        c => word.push(c),
                    }
                }
            }
            '\\' => word.get_or_insert_default().push(rest.next().ok_or("nothing follows its last backslash")?),
            c => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    Ok(words)
}

const UNCLOSED: &str = "a quote in it is not closed";

#[cfg(test)]
mod tests {
    use super::*;

    /// The words are those of Python's `shlex.split`, which Patroni uses.
    #[test]
    fn words_are_a_shells() {
        for (text, words) in [
            ("", &[][..]),
            (" \t\n", &[]),
            ("/bin/x  a b", &["/bin/x", "a", "b"]),
            (r#"a'b c'"d e"f"#, &["ab cd ef"]),
            (r#"'' "" x"#, &["", "", "x"]),
            (r"a\ b \'", &["a b", "'"]),
            (r#""\"\\\$x" '\n'"#, &[r#""\\$x"#, r"\n"]),
            ("x # $HOME *", &["x", "#", "$HOME", "*"]),
            ("é 'ü ß'", &["é", "ü ß"]),
        ] {
            assert_eq!(split(text).unwrap(), words, "{text}");
        }
        for text in ["'a", "\"a", r#""a\"#, r"a\"] {
            assert!(split(text).is_err(), "{text}");
        }
        assert_eq!(split(&"a ".repeat(3)).unwrap().len(), 3);
    }
}
