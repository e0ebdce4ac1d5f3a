//! `keyledger break-glass new-master-key`

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use projections::text::Label;
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use super::super::failure::{Failure, Outcome};
use super::super::output::{print, print_json, safe, talk};
use super::super::view::break_glass::{NewMasterKey as View, hex};
use super::new_file::NewFile;
use crate::ledger::break_glass::MASTER_KEY_HEAD;
use crate::ledger::mint::mint_text;

/// Make a custodian's master key, here and without a server.
///
/// The key is shown this once, and only its SHA-256 digest goes into the server's
/// configuration. Whoever is the custodian runs this, and keeps the key out of reach of
/// everybody else.
#[derive(Args)]
#[command(after_help = "\
Examples:
  keyledger break-glass new-master-key --custodian alice
  keyledger break-glass new-master-key --custodian alice --out alice.key >> keyledger.toml")]
pub(in crate::cli) struct NewMasterKey {
    /// What the custodian is called: 1 to 64 characters of `A-Z a-z 0-9 . _ -`
    #[arg(long, value_name = "NAME")]
    custodian: Label,

    /// Write the key into this new file of mode 0600, and print what the configuration needs
    /// alone
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,

    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

impl NewMasterKey {
    pub(in crate::cli) fn run(self) -> Outcome {
        let file = self.out.as_deref().map(|path| NewFile::make(path, "the master key"));
        let file = file.transpose()?;
        let key = mint_text(MASTER_KEY_HEAD)
            .map_err(|error| Failure::fault("cannot make a key").because(error))?;
        let sha256 = hex(&Sha256::digest(key.expose().as_bytes()));
        if let Some(mut file) = file {
            file.write(key.expose().as_bytes())?;
            file.write(b"\n")?;
            file.keep()?;
        }
        let shown = self.out.is_none().then(|| key.expose());
        let view = View::new(self.custodian.as_str(), shown, sha256, self.out.as_deref());
        if self.json {
            print_json(&view)?;
        } else {
            print(&Zeroizing::new(view.to_text()))?;
        }
        match &self.out {
            Some(path) => {
                let path = safe(&path.display().to_string());
                talk(&format!("next: put the block into `keyledger.toml`; the key is in {path}\n"));
            }
            None => talk("note: the master key is shown this once; keep it now\n"),
        }
        Ok(ExitCode::SUCCESS)
    }
}
