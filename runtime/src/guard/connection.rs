//! The guard's side of a connection. Nothing here ever waits.

use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;

use super::protocol::{LINE_BYTES_MAX, Report, line};

/// Someone who has connected, with the kernel's word for who that is.
#[derive(Debug)]
pub(super) struct Connection {
    stream: UnixStream,
    buffer: Vec<u8>,
    pub(super) pid: i32,
    pub(super) gid: u32,
}

/// What a reading brought.
#[derive(Debug)]
pub(super) struct Reading {
    pub(super) lines: Vec<Vec<u8>>,
    pub(super) is_open: bool,
}

impl Connection {
    /// Refuses everyone but root and `agent_uid`.
    pub(super) fn accept(stream: UnixStream, agent_uid: u32) -> io::Result<Self> {
        stream.set_nonblocking(true)?;
        let peer = rustix::net::sockopt::socket_peercred(&stream)?;
        let (pid, uid) = (peer.pid.as_raw_pid(), peer.uid.as_raw());
        if uid != 0 && uid != agent_uid {
            return Err(io::Error::new(
                ErrorKind::PermissionDenied,
                format!("process {pid} of uid {uid} may not give orders, only uid {agent_uid} and root may"),
            ));
        }
        Ok(Self { stream, buffer: Vec::new(), pid, gid: peer.gid.as_raw() })
    }

    /// Every whole line that is there.
    pub(super) fn read(&mut self) -> Reading {
        let mut chunk = [0; 4096];
        let mut is_open = loop {
            if self.buffer.len() > LINE_BYTES_MAX {
                // The rest stays in the socket for the next time.
                break true;
            }
            match self.stream.read(&mut chunk) {
                Ok(0) => break false,
                Ok(length) => self.buffer.extend_from_slice(chunk.get(..length).unwrap_or_default()),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break true,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => break false,
            }
        };
        let mut lines = Vec::new();
        while let Some(end) = self.buffer.iter().position(|&byte| byte == b'\n') {
            let rest = self.buffer.split_off(end + 1);
            lines.push(std::mem::replace(&mut self.buffer, rest));
        }
        is_open &= self.buffer.len() <= LINE_BYTES_MAX;
        Reading { lines, is_open }
    }

    /// Sends at once or fails: an agent that does not read is not waited for.
    pub(super) fn send(&mut self, report: &Report) -> io::Result<()> {
        self.stream.write_all(&line(report))
    }
}

impl AsFd for Connection {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}
