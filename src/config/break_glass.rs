//! Settings of emergency access: the section `[break_glass]` of the settings file, and the
//! variables `MASTER_KEY` and `BREAK_GLASS_ENABLED`.

use std::collections::BTreeSet;
use std::fmt::Display;

use projections::event::BreakGlassRules;
use projections::id::AccountId;
use projections::permission::{Permission, Scopes};
use projections::text::Label;
use serde::Deserialize;
use sha2::{Digest as _, Sha256};

use super::ConfigError;
use super::complete::sha256;
use crate::ledger::secret::Secret;
use crate::ledger::start::{
    ConfiguredBreakGlass, ConfiguredCustodian, ConfiguredKeys, check_secret_text,
};

/// Most custodians.
const CUSTODIANS_MAX: usize = 16;
/// Longest that a grant may last, in seconds: seven days.
const DURATION_S_MAX: u32 = 7 * 86_400;
/// Longest that an approval or a review may be waited for, in seconds: ninety days.
const WAIT_S_MAX: u32 = 90 * 86_400;
/// Most grants that may be opened within the time that is counted.
const OPENINGS_MAX: u32 = 10_000;
/// What a custodian of whom nothing is known but `MASTER_KEY` is called.
const UNBOUND: &str = "master";
/// What a grant may permit where nothing is said: to see what there is, and to end access.
const PERMISSIONS: [&str; 9] = [
    "activity:read",
    "api-keys:read",
    "api-keys:write",
    "roles:read",
    "service-accounts:read",
    "sessions:read",
    "sessions:write",
    "users:read",
    "users:write",
];

/// The section as the file gives it: each setting may be missing.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct BreakGlassSettings {
    /// Whether there is emergency access at all.
    pub enabled: Option<bool>,
    /// All that a grant may permit.
    pub permissions: Option<Vec<String>>,
    /// How long a grant lasts where whoever opens it does not say.
    pub duration_seconds: Option<u32>,
    /// How long a grant may last.
    pub duration_max_seconds: Option<u32>,
    /// Whether somebody else must approve a grant.
    pub approval: Option<bool>,
    /// How long a grant waits for that.
    pub approval_seconds: Option<u32>,
    /// Whether somebody else must review a grant that has ended.
    pub review: Option<bool>,
    /// After how long a missing review is escalated.
    pub review_seconds: Option<u32>,
    /// Whether a reason must be given with a master key.
    pub reason_required: Option<bool>,
    /// Whether an incident must be named.
    pub incident_required: Option<bool>,
    /// Most grants that are opened in all organizations together.
    pub openings_max: Option<u32>,
    /// Within this time.
    pub openings_seconds: Option<u32>,
    /// Who may open grants.
    pub custodians: Vec<CustodianSetting>,
    /// The digest of `MASTER_KEY`.
    #[serde(skip)]
    pub master_key: Option<[u8; 32]>,
}

/// `[[break_glass.custodians]]`: somebody who has a master key.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CustodianSetting {
    /// What the custodian is called.
    pub name: String,
    /// The person's account.
    pub account: Option<String>,
    /// The SHA-256 digest of the master key; absent for the one in `MASTER_KEY`.
    pub master_key_sha256: Option<String>,
}

fn wrong(setting: impl Into<String>, problem: impl Display) -> ConfigError {
    let setting = format!("break_glass.{}", setting.into());
    ConfigError::Rule { setting, problem: problem.to_string() }
}

fn within(
    name: &'static str,
    given: Option<u32>,
    usual: u32,
    most: u32,
) -> Result<u32, ConfigError> {
    match given.unwrap_or(usual) {
        value if (1..=most).contains(&value) => Ok(value),
        _ => Err(wrong(name, format_args!("must be 1 to {most}"))),
    }
}

impl BreakGlassSettings {
    /// Takes in what the variables say. They are over the file.
    ///
    /// # Errors
    ///
    /// `BREAK_GLASS_ENABLED` is neither `true` nor `false`, or `MASTER_KEY` is no secret.
    pub fn with_variables(
        self,
        enabled: Option<&str>,
        master_key: Option<&Secret>,
    ) -> Result<Self, ConfigError> {
        let enabled = match enabled {
            None => None,
            Some("true" | "1") => Some(true),
            Some("false" | "0") => Some(false),
            Some(_) => {
                return Err(ConfigError::Rule {
                    setting: "BREAK_GLASS_ENABLED".to_owned(),
                    problem: "must be `true` or `false`".to_owned(),
                });
            }
        };
        let digest = |key: &Secret| -> Result<[u8; 32], ConfigError> {
            if !check_secret_text(key) {
                return Err(ConfigError::Rule {
                    setting: "MASTER_KEY".to_owned(),
                    problem: "must have 24 to 512 visible ASCII characters; `keyledger break-glass new-master-key` makes one".to_owned(),
                });
            }
            Ok(Sha256::digest(key.expose().as_bytes()).into())
        };
        let master_key = master_key.map(digest).transpose()?;
        Ok(Self {
            enabled: enabled.or(self.enabled),
            master_key: master_key.or(self.master_key),
            ..self
        })
    }

    /// Checks the section and fills in what nobody said; none where there is no emergency
    /// access. Where nobody has a master key, the start leaves it off and says so.
    pub(super) fn complete(
        self,
        production: bool,
    ) -> Result<Option<ConfiguredBreakGlass>, ConfigError> {
        let rules = self.rules(production)?;
        let custodians = self.custodians()?;
        if self.enabled != Some(true) {
            return Ok(None);
        }
        let unbound = custodians.iter().find(|it| it.account_id.is_none());
        if let Some(unbound) = unbound.filter(|_| rules.approval_required || rules.review_required)
        {
            return Err(wrong(
                "custodians",
                format_args!(
                    "`{}` is bound to no account: with `approval` or `review` on, persons are told apart by their accounts; give it an `account` (`acc_…`), or turn both off",
                    unbound.name
                ),
            ));
        }
        Ok(Some(ConfiguredBreakGlass { rules, custodians }))
    }

    fn rules(&self, production: bool) -> Result<BreakGlassRules, ConfigError> {
        let permissions = match &self.permissions {
            Some(texts) => Scopes::new(texts),
            None => Scopes::new(&PERMISSIONS),
        };
        let permissions = permissions.map_err(|error| wrong("permissions", error))?;
        if permissions.iter().any(|it| it == Permission::ORG_ADMIN) {
            let problem = "may not hold `org:admin`, which is all of them; name each";
            return Err(wrong("permissions", problem));
        }
        let duration_max_seconds =
            within("duration_max_seconds", self.duration_max_seconds, 4 * 3_600, DURATION_S_MAX)?;
        let usual = duration_max_seconds.min(3_600);
        Ok(BreakGlassRules {
            custodians: Vec::new(),
            permissions,
            duration_seconds: within(
                "duration_seconds",
                self.duration_seconds,
                usual,
                duration_max_seconds,
            )?,
            duration_max_seconds,
            approval_required: self.approval.unwrap_or(false),
            approval_seconds: within("approval_seconds", self.approval_seconds, 3_600, WAIT_S_MAX)?,
            review_required: self.review.unwrap_or(true),
            review_seconds: within("review_seconds", self.review_seconds, 3 * 86_400, WAIT_S_MAX)?,
            reason_required: self.reason_required.unwrap_or(production),
            incident_required: self.incident_required.unwrap_or(false),
            openings_max: within("openings_max", self.openings_max, 10, OPENINGS_MAX)?,
            openings_seconds: within(
                "openings_seconds",
                self.openings_seconds,
                86_400,
                WAIT_S_MAX,
            )?,
        })
    }

    fn custodians(&self) -> Result<Vec<ConfiguredCustodian>, ConfigError> {
        if self.custodians.len() > CUSTODIANS_MAX {
            return Err(wrong("custodians", format_args!("must be at most {CUSTODIANS_MAX}")));
        }
        let mut master_key = self.master_key;
        let mut custodians = Vec::new();
        let (mut names, mut accounts, mut digests) =
            (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
        for (place, setting) in self.custodians.iter().enumerate() {
            let at = |field: &str| format!("custodians[{place}].{field}");
            let name: Label = setting.name.parse().map_err(|error| wrong(at("name"), error))?;
            let account_id = setting.account.as_deref().map(str::parse::<AccountId>).transpose();
            let account_id = account_id.map_err(|error| wrong(at("account"), error))?;
            let given = setting.master_key_sha256.as_deref();
            let digest = sha256("break_glass.custodians.master_key_sha256", given)?;
            let sha256 = match digest.or_else(|| master_key.take()) {
                Some(sha256) => sha256,
                None => {
                    let problem = "must be given where `MASTER_KEY` is not, or is another's";
                    return Err(wrong(at("master_key_sha256"), problem));
                }
            };
            custodians.push(ConfiguredCustodian { name, account_id, sha256 });
        }
        // Of whom nothing is said.
        if let Some(sha256) = master_key {
            let name = UNBOUND.parse().map_err(|error| wrong("custodians", error))?;
            custodians.push(ConfiguredCustodian { name, account_id: None, sha256 });
        }
        for custodian in &custodians {
            let is_new = names.insert(custodian.name.clone())
                && custodian.account_id.is_none_or(|id| accounts.insert(id))
                && digests.insert(custodian.sha256);
            if !is_new {
                let problem = format_args!(
                    "`{}` has the name, the account or the master key of another",
                    custodian.name
                );
                return Err(wrong("custodians", problem));
            }
        }
        custodians.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(custodians)
    }
}

/// A master key is no other key of the configuration: as that it would leave no trace.
pub(super) fn check_others(keys: &ConfiguredKeys) -> Result<(), ConfigError> {
    let token = keys.admin_api_token.as_ref().map(|it| Sha256::digest(it.expose().as_bytes()));
    let others: [Option<[u8; 32]>; 3] =
        [token.map(Into::into), keys.admin_key_sha256, keys.global.as_ref().map(|it| it.sha256)];
    let custodians = keys.break_glass.iter().flat_map(|it| &it.custodians);
    for custodian in custodians {
        if others.contains(&Some(custodian.sha256)) {
            let problem = format_args!(
                "the master key of `{}` is another key of this configuration; make a new one",
                custodian.name
            );
            return Err(wrong("custodians", problem));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const ACCOUNT: &str = "acc_01ARZ3NDEKTSV4RRFFQ69G5FAV";

    fn section(text: &str) -> Result<Option<ConfiguredBreakGlass>, String> {
        let settings: BreakGlassSettings = toml::from_str(text).map_err(|it| it.to_string())?;
        settings.complete(false).map_err(|it| it.to_string())
    }

    fn custodian(name: &str, account: &str, digit: char) -> String {
        let digest = digit.to_string().repeat(64);
        format!(
            "[[custodians]]\nname = '{name}'\naccount = '{account}'\nmaster_key_sha256 = '{digest}'\n"
        )
    }

    #[test]
    fn it_is_off_unless_enabled_with_a_master_key() {
        assert_eq!(section("").unwrap(), None);
        let nobody = section("enabled = true").unwrap().unwrap();
        assert!(nobody.custodians.is_empty(), "the start says so, and leaves it off");
        assert_eq!(section(&custodian("alice", ACCOUNT, 'a')).unwrap(), None);
        let on = format!("enabled = true\n{}", custodian("alice", ACCOUNT, 'a'));
        let on = section(&on).unwrap().unwrap();
        assert_eq!(on.custodians.len(), 1);
        assert!(on.rules.review_required && !on.rules.approval_required);
        assert!(!on.rules.permissions.imply_everything());
    }

    #[test]
    fn a_master_key_of_nobody_needs_neither_approval_nor_review() {
        let key = Secret::new(zeroize::Zeroizing::new("m".repeat(32)));
        let settings = |text: &str| {
            let settings: BreakGlassSettings = toml::from_str(text).unwrap();
            let settings = settings.with_variables(Some("true"), Some(&key)).unwrap();
            settings.complete(false).map_err(|it| it.to_string())
        };
        assert!(settings("").unwrap_err().contains("bound to no account"));
        assert!(settings("review = false\napproval = true").is_err());
        let on = settings("review = false").unwrap().unwrap();
        assert_eq!((on.custodians[0].name.as_str(), on.custodians[0].account_id), ("master", None));
        // It may be somebody's.
        let alice = format!("[[custodians]]\nname = 'alice'\naccount = '{ACCOUNT}'\n");
        let on = settings(&alice).unwrap().unwrap();
        assert_eq!(on.custodians.len(), 1);
        assert_eq!(on.custodians[0].sha256, <[u8; 32]>::from(Sha256::digest("m".repeat(32))));
    }

    #[test]
    fn a_master_key_is_no_other_configured_key() {
        let secret = "s".repeat(32);
        let text = || Secret::new(zeroize::Zeroizing::new(secret.clone()));
        let settings: BreakGlassSettings = toml::from_str("review = false").unwrap();
        let settings = settings.with_variables(Some("true"), Some(&text())).unwrap();
        let with = |otherwise: &dyn Fn(&mut ConfiguredKeys)| {
            let break_glass = settings.clone().complete(false).unwrap();
            let mut keys = ConfiguredKeys { break_glass, ..ConfiguredKeys::default() };
            otherwise(&mut keys);
            check_others(&keys)
        };
        let sha256: [u8; 32] = Sha256::digest(&secret).into();
        assert!(with(&|_| ()).is_ok());
        assert!(with(&|keys| keys.admin_api_token = Some(text())).is_err());
        assert!(with(&|keys| keys.admin_key_sha256 = Some(sha256)).is_err());
    }

    #[test]
    fn what_is_wrong_is_named() {
        let short = Secret::new(zeroize::Zeroizing::new("short".to_owned()));
        let settings = BreakGlassSettings::default();
        let wrong = settings.clone().with_variables(None, Some(&short)).unwrap_err().to_string();
        assert!(wrong.contains("MASTER_KEY") && !wrong.contains("short"), "{wrong}");
        assert!(settings.with_variables(Some("yes"), None).is_err());
        for (text, named) in [
            ("permissions = ['org:admin']".to_owned(), "org:admin"),
            ("permissions = ['dns:*']".to_owned(), "break_glass.permissions"),
            ("permissions = []".to_owned(), "break_glass.permissions"),
            ("duration_seconds = 0".to_owned(), "break_glass.duration_seconds"),
            ("duration_seconds = 14401".to_owned(), "must be 1 to 14400"),
            ("duration_max_seconds = 99999999".to_owned(), "duration_max_seconds"),
            ("openings_max = 0".to_owned(), "openings_max"),
            ("[[custodians]]\nname = 'a b'".to_owned(), "custodians[0].name"),
            ("[[custodians]]\nname = 'a'\naccount = 'x'".to_owned(), "custodians[0].account"),
            ("[[custodians]]\nname = 'a'".to_owned(), "custodians[0].master_key_sha256"),
            (
                format!("{}{}", custodian("a", ACCOUNT, 'a'), custodian("b", ACCOUNT, 'b')),
                "of another",
            ),
            ("colour = 'red'".to_owned(), "unknown field"),
        ] {
            let wrong = section(&format!("enabled = true\n{text}")).unwrap_err();
            assert!(wrong.contains(named), "{text}: {wrong}");
        }
    }
}
