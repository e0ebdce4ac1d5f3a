//! Settings about people: the sections `[accounts]`, `[passwords]` and `[invitations]` of the settings file.
//! They have no flags and no variables.

use std::path::PathBuf;

use projections::text::PlanName;
use serde::Deserialize;

use super::ConfigError;
use crate::ledger::accounts::personal::PersonalTerms;
use crate::ledger::built_in;
use crate::ledger::sign_in::guessing::RefusedPasswords;
use crate::ledger::start::ConfiguredRules;
use crate::services::organization::HandOver;

/// `[accounts]`: what comes with an account.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AccountSettings {
    /// Whether each new account has an organization of its own.
    pub personal_organizations: Option<bool>,
    /// The plan that it is on.
    pub personal_plan: Option<String>,
}

impl AccountSettings {
    /// Checks the section, with the plans there are, and fills in what nobody said.
    pub(super) fn complete(self, rules: &ConfiguredRules) -> Result<PersonalTerms, ConfigError> {
        let usual = PersonalTerms::default();
        let plan = match self.personal_plan {
            None => usual.plan,
            Some(text) => {
                let wrong = |problem: &str| ConfigError::Rule {
                    setting: "accounts.personal_plan".to_owned(),
                    problem: problem.to_owned(),
                };
                let plan: PlanName =
                    text.parse().map_err(|_| wrong("is no plan's name; name one of `plans`"))?;
                let configured = rules.plans.iter().any(|(name, _)| *name == plan);
                let known = configured || built_in::plan(&plan).is_some();
                if !known || plan == built_in::operator_plan() {
                    return Err(wrong(
                        "is no plan that an organization can be on; name `free`, `paid` or one of `plans`",
                    ));
                }
                plan
            }
        };
        let for_new_accounts = self.personal_organizations.unwrap_or(usual.for_new_accounts);
        Ok(PersonalTerms { for_new_accounts, plan })
    }
}

/// `[passwords]`: what a password is held to beside its length.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PasswordSettings {
    /// A list of passwords that are refused, one on a line.
    pub refuse_file: Option<PathBuf>,
}

impl PasswordSettings {
    /// Reads the list.
    pub(super) fn complete(self) -> Result<RefusedPasswords, ConfigError> {
        match self.refuse_file {
            Some(path) => RefusedPasswords::read(&path).map_err(ConfigError::RefusedPasswords),
            None => Ok(RefusedPasswords::default()),
        }
    }
}

/// `[invitations]`: who is handed the tokens that nobody delivers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct InvitationSettings {
    /// Who is.
    pub hand_over: Option<HandOverSetting>,
}

/// Who is handed the token of an invitation that nobody delivers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HandOverSetting {
    /// Whoever invites.
    Inviter,
    /// Whoever invites, if they are an operator.
    Operators,
    /// Nobody.
    Nobody,
}

impl InvitationSettings {
    /// What is so, in production mode or not.
    pub(super) fn complete(self, production: bool) -> HandOver {
        match self.hand_over {
            Some(HandOverSetting::Inviter) => HandOver::Inviter,
            Some(HandOverSetting::Operators) => HandOver::Operators,
            Some(HandOverSetting::Nobody) => HandOver::Nobody,
            None if production => HandOver::Operators,
            None => HandOver::Inviter,
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::config::Settings;

    fn terms(text: &str) -> Result<(bool, String), String> {
        let settings: Settings =
            toml::from_str(text).map_err(|error| error.message().to_owned())?;
        let config = settings.complete(None).map_err(|error| error.to_string())?;
        let personal = config.sign_in.personal;
        Ok((personal.for_new_accounts, personal.plan.to_string()))
    }

    #[test]
    fn accounts_have_no_organization_of_their_own_unless_somebody_says_so() {
        assert_eq!(terms(""), Ok((false, "paid".to_owned())));
        let on = "[accounts]\npersonal_organizations = true\npersonal_plan = 'free'\n";
        assert_eq!(terms(on), Ok((true, "free".to_owned())));
        let named = "[accounts]\npersonal_plan = 'pro'\n[plans.pro]\nkey_lifetime_max = '90d'";
        assert_eq!(terms(named), Ok((false, "pro".to_owned())));
        for bad in ["operator", "pro", "", "Free"] {
            let said = terms(&format!("[accounts]\npersonal_plan = '{bad}'")).unwrap_err();
            assert!(said.starts_with("`accounts.personal_plan`: is no plan"), "{said}");
        }
        assert!(terms("[accounts]\npersonal = true").unwrap_err().contains("unknown field"));
    }
}
