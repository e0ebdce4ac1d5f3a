//! Roles by name: only identifiers travel on the wire.

use super::super::failure::Failure;
use crate::ledger::built_in;

/// What the identifiers of roles begin with.
const ID_PREFIX: &str = "rol_";

/// The identifier of a role that is given by identifier, or by the name of a built-in one.
pub(in crate::cli) fn id_of(role: &str) -> Result<String, Failure> {
    if role.starts_with(ID_PREFIX) {
        return Ok(role.to_owned());
    }
    let roles = built_in::rules().roles;
    if let Some((id, _)) = roles.iter().find(|(_, it)| it.name.as_str() == role) {
        return Ok(id.to_string());
    }
    let names: Vec<&str> = roles.iter().map(|(_, it)| it.name.as_str()).collect();
    Err(Failure::fault(format!(
        "role `{role}` is neither an identifier (`{ID_PREFIX}…`) nor a built-in role"
    ))
    .hint(format!(
        "built-in roles are {}; `keyledger role list` shows the identifiers of your own",
        names.join(", ")
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn built_in_roles_go_by_name() {
        assert_eq!(id_of("operator-admin").unwrap(), built_in::OPERATOR_ADMIN.to_string());
        assert_eq!(id_of("rol_x").unwrap(), "rol_x");
        assert!(id_of("").is_err());
        assert!(id_of("janitor").unwrap_err().report().contains("dns-manager"));
    }
}
