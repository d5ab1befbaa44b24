//! What a command says and asks.

use std::io::{BufRead, Write};

use super::CtlError;

/// Standard input and output, or a test's.
pub(super) struct Console<'a> {
    input: &'a mut dyn BufRead,
    output: &'a mut dyn Write,
}

impl<'a> Console<'a> {
    pub(super) fn new(input: &'a mut dyn BufRead, output: &'a mut dyn Write) -> Self {
        Self { input, output }
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

    fn read(&mut self) -> Result<String, CtlError> {
        let mut line = String::new();
        let read = self.input.read_line(&mut line).map_err(|_| CtlError::Aborted)?;
        if read == 0 { Err(CtlError::Aborted) } else { Ok(line.trim().to_owned()) }
    }
}
