//! What a command says and asks.

use std::io::{BufRead, IsTerminal, Write};
use std::path::Path;

use rustix::termios::{LocalModes, OptionalActions, tcgetattr, tcsetattr};

use super::{CtlError, failed};

/// Standard input and output, or a test's.
pub(super) struct Console<'a> {
    input: &'a mut dyn BufRead,
    output: &'a mut dyn Write,
    /// Whether a person looks at the output: then there are colours, and a view is painted in place.
    pub(super) is_terminal: bool,
}

impl<'a> Console<'a> {
    pub(super) fn new(input: &'a mut dyn BufRead, output: &'a mut dyn Write, is_terminal: bool) -> Self {
        Self { input, output, is_terminal }
    }

    /// Prints as it is.
    pub(super) fn print(&mut self, text: &str) -> Result<(), CtlError> {
        self.output.write_all(text.as_bytes())?;
        Ok(self.output.flush()?)
    }

    /// Prints a line.
    pub(super) fn line(&mut self, text: &str) -> Result<(), CtlError> {
        self.print(&format!("{text}\n"))
    }

    /// Asks for a text; an empty line means `default`. The end of the input is an abort.
    pub(super) fn prompt(&mut self, question: &str, default: &str) -> Result<String, CtlError> {
        self.print(&format!("{question} [{default}]: "))?;
        let answer = self.read()?;
        Ok(if answer.is_empty() { default.to_owned() } else { answer })
    }

    /// Asks for a text until there is one.
    pub(super) fn insist(&mut self, question: &str) -> Result<String, CtlError> {
        loop {
            self.print(&format!("{question}: "))?;
            let answer = self.read()?;
            if !answer.is_empty() {
                return Ok(answer);
            }
        }
    }

    /// Asks for a text that is not shown while it is typed.
    pub(super) fn secret(&mut self, question: &str) -> Result<String, CtlError> {
        let hidden = Hidden::start();
        let answer = self.insist(question);
        if hidden.is_some() {
            self.line("")?;
        }
        answer
    }

    /// Asks yes or no; an empty line means no.
    pub(super) fn confirm(&mut self, question: &str) -> Result<bool, CtlError> {
        loop {
            self.print(&format!("{question} [y/N]: "))?;
            match self.read()?.to_lowercase().as_str() {
                "y" | "yes" | "t" | "true" | "1" | "on" => return Ok(true),
                "" | "n" | "no" | "f" | "false" | "0" | "off" => return Ok(false),
                _ => self.line("Error: invalid input")?,
            }
        }
    }

    /// The text of a file, or of the standard input, which is called `-`.
    pub(super) fn text_of(&mut self, file: &Path) -> Result<String, CtlError> {
        let mut text = String::new();
        let read = if file == Path::new("-") {
            self.input.read_to_string(&mut text).map(|_| text)
        } else {
            std::fs::read_to_string(file)
        };
        read.or_else(|error| failed(format!("cannot read {}: {error}", file.display())))
    }

    fn read(&mut self) -> Result<String, CtlError> {
        let mut line = String::new();
        let read = self.input.read_line(&mut line).map_err(|_| CtlError::Aborted)?;
        if read == 0 { Err(CtlError::Aborted) } else { Ok(line.trim().to_owned()) }
    }
}

/// While it is, a terminal does not show what is typed.
struct Hidden(rustix::termios::Termios);

impl Hidden {
    fn start() -> Option<Self> {
        let stdin = std::io::stdin();
        let shown = tcgetattr(&stdin).ok().filter(|_| stdin.is_terminal())?;
        let mut hidden = shown.clone();
        hidden.local_modes -= LocalModes::ECHO;
        tcsetattr(&stdin, OptionalActions::Flush, &hidden).ok().map(|()| Self(shown))
    }
}

impl Drop for Hidden {
    fn drop(&mut self) {
        let _ = tcsetattr(std::io::stdin(), OptionalActions::Flush, &self.0);
    }
}
