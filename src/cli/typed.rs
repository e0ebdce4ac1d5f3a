//! Secrets that somebody types, or that stand on standard input, one to a line.
//!
//! On a terminal they are asked for, and a password is not shown. Elsewhere a verb takes them
//! from the lines of standard input, in the order in which its help names them. They are
//! never arguments: others could see those.

use std::fs::File;
use std::io::{self, ErrorKind, IsTerminal as _, Read, Stdin};
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};

use clap::Args;
use rustix::termios::{
    LocalModes, OptionalActions, SpecialCodeIndex, Termios, tcgetattr, tcsetattr,
};
use zeroize::Zeroizing;

use super::failure::Failure;
use super::output::talk;
use super::secret_text::CREDENTIAL_BYTES_MAX;

/// What Ctrl-C is on a line that takes no signals.
const INTERRUPT: u8 = 3;

/// The password of an account.
#[derive(Args)]
pub(super) struct PasswordFile {
    /// The file that holds the password [default: asked for on a terminal, else a line of
    /// standard input]
    #[arg(long, value_name = "FILE")]
    password_file: Option<PathBuf>,
}

impl PasswordFile {
    /// The password that is there already.
    pub(super) fn obtain(&self) -> Result<Zeroizing<String>, Failure> {
        password(self.password_file.as_deref(), "password", false)
    }

    /// A password that is being chosen: whoever types it does so twice.
    pub(super) fn obtain_new(&self) -> Result<Zeroizing<String>, Failure> {
        password(self.password_file.as_deref(), "password", true)
    }
}

/// A password, from this file, or as it is typed; one that is new is typed twice.
pub(super) fn password(
    file: Option<&Path>,
    what: &str,
    new: bool,
) -> Result<Zeroizing<String>, Failure> {
    let text = secret(file, what)?;
    if new && file.is_none() && is_terminal() && *secret(None, &format!("{what} again"))? != *text {
        return Err(Failure::fault(format!("the {what} is not the same both times")));
    }
    Ok(text)
}

/// A secret, from the first line of this file, or as it is typed.
pub(super) fn secret(file: Option<&Path>, what: &str) -> Result<Zeroizing<String>, Failure> {
    let (line, place) = match file {
        Some(path) => {
            let place = format!("`{}`", path.display());
            (File::open(path).and_then(first_line), place)
        }
        None => {
            let stdin = io::stdin();
            let line = if stdin.is_terminal() { hidden(&stdin, what)? } else { line_of(&stdin) };
            (line, "standard input".to_owned())
        }
    };
    let cannot = || Failure::fault(format!("cannot read the {what} from {place}"));
    let line = line.map_err(|error| cannot().because(error))?;
    if line.is_empty() {
        return Err(cannot().because("there is none"));
    }
    Ok(line)
}

/// Whether somebody can be asked.
pub(super) fn is_terminal() -> bool {
    io::stdin().is_terminal()
}

/// Asks for what is no secret any more once it was used.
pub(super) fn ask(what: &str) -> Result<String, Failure> {
    talk(&format!("{what}: "));
    let line = line_of(&io::stdin());
    let line = line.map_err(|it| Failure::fault(format!("cannot read the {what}")).because(it))?;
    Ok(line.trim().to_owned())
}

/// Asks for a secret, and shows nothing of it.
fn hidden(stdin: &Stdin, what: &str) -> Result<io::Result<Zeroizing<String>>, Failure> {
    let cannot = |error| Failure::fault("cannot ask for a secret here").because(error);
    let quiet = Quiet::begin(stdin).map_err(cannot)?;
    talk(&format!("{what}: "));
    let line = line_of(stdin);
    drop(quiet);
    talk("\n");
    if line.as_ref().is_ok_and(|it| it.as_bytes().contains(&INTERRUPT)) {
        return Err(Failure::fault("interrupted"));
    }
    Ok(line)
}

/// A terminal that shows nothing of what is typed, until this is dropped. A signal would
/// leave it so: Ctrl-C ends the line instead.
struct Quiet<'a> {
    terminal: &'a Stdin,
    before: Termios,
}

impl<'a> Quiet<'a> {
    fn begin(terminal: &'a Stdin) -> io::Result<Self> {
        let before = tcgetattr(terminal)?;
        let mut quiet = before.clone();
        quiet.local_modes.remove(LocalModes::ECHO | LocalModes::ECHONL | LocalModes::ISIG);
        quiet.local_modes.insert(LocalModes::ICANON);
        quiet.special_codes[SpecialCodeIndex::VEOL] = INTERRUPT;
        // What was typed ahead was shown: it is no secret.
        tcsetattr(terminal, OptionalActions::Flush, &quiet)?;
        Ok(Self { terminal, before })
    }
}

impl Drop for Quiet<'_> {
    fn drop(&mut self) {
        let _ = tcsetattr(self.terminal, OptionalActions::Now, &self.before);
    }
}

/// One line, and nothing behind it: that is for whoever reads next.
fn line_of(stdin: &Stdin) -> io::Result<Zeroizing<String>> {
    first_line(Unbuffered(stdin))
}

/// The standard library's own keeps copies of what it read.
struct Unbuffered<'a>(&'a Stdin);

impl Read for Unbuffered<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        Ok(rustix::io::read(self.0.as_fd(), buffer)?)
    }
}

fn first_line(mut source: impl Read) -> io::Result<Zeroizing<String>> {
    // Room for everything from the start: a text that grows leaves copies behind.
    let mut line = Zeroizing::new(Vec::with_capacity(CREDENTIAL_BYTES_MAX));
    let mut byte = Zeroizing::new([0_u8]);
    loop {
        match source.read(&mut *byte) {
            Ok(0) => break,
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        }
        let [read] = *byte;
        if read == b'\n' {
            break;
        }
        if line.len() == CREDENTIAL_BYTES_MAX {
            let problem = format!("longer than {CREDENTIAL_BYTES_MAX} bytes");
            return Err(io::Error::new(ErrorKind::InvalidData, problem));
        }
        line.push(read);
        if read == INTERRUPT {
            break;
        }
    }
    if line.last() == Some(&b'\r') {
        line.pop();
    }
    let text = std::str::from_utf8(&line)
        .map_err(|_| io::Error::new(ErrorKind::InvalidData, "is no UTF-8"))?;
    Ok(Zeroizing::new(text.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_ends_where_it_ends_and_keeps_its_spaces() {
        for (text, line) in
            [("a b \nrest", "a b "), (" a\r\n", " a"), ("no end", "no end"), ("", "")]
        {
            assert_eq!(*first_line(text.as_bytes()).unwrap(), line);
        }
        let mut two = "one\ntwo\n".as_bytes();
        assert_eq!(*first_line(&mut two).unwrap(), "one");
        assert_eq!(*first_line(&mut two).unwrap(), "two");
        assert!(first_line("x".repeat(CREDENTIAL_BYTES_MAX + 1).as_bytes()).is_err());
        assert!(first_line([0xff_u8].as_slice()).is_err());
    }
}
