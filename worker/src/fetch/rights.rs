//! Whose jobs may fetch from the web.

use std::{fmt, str::FromStr};

use sortinghat_proto::{Refusal, Tenant};

/// Whose jobs may fetch from the web.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Rights {
    /// Nobody's.
    Nobody,
    /// Everybody's.
    Everybody,
    /// Those of these tenants.
    Tenants(Vec<Tenant>),
}

impl Rights {
    /// Whether this tenant's jobs may.
    pub(crate) fn include(&self, tenant: &Tenant) -> bool {
        match self {
            Self::Nobody => false,
            Self::Everybody => true,
            Self::Tenants(tenants) => tenants.contains(tenant),
        }
    }
}

impl fmt::Display for Rights {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nobody => f.write_str("nobody"),
            Self::Everybody => f.write_str("everybody"),
            Self::Tenants(tenants) => {
                let names: Vec<String> = tenants.iter().map(ToString::to_string).collect();
                f.write_str(&names.join(","))
            }
        }
    }
}

impl FromStr for Rights {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.trim() {
            "nobody" => Ok(Self::Nobody),
            "everybody" => Ok(Self::Everybody),
            names => {
                let tenant = |name: &str| name.trim().parse().map_err(|refusal: Refusal| refusal.message);
                names.split(',').map(tenant).collect::<Result<_, _>>().map(Self::Tenants)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_of_tenants_includes_these_and_no_other() {
        let rights = |text: &str| text.parse::<Rights>().unwrap();
        let (lab, shop): (Tenant, Tenant) = ("lab".parse().unwrap(), "shop".parse().unwrap());
        assert!(rights("everybody").include(&lab) && !rights("nobody").include(&lab));
        assert!(rights("lab, other").include(&lab) && !rights("lab,other").include(&shop));
        assert_eq!(rights("lab, other").to_string(), "lab,other");
        for unreadable in ["", "Lab", "lab,,shop", "*"] {
            unreadable.parse::<Rights>().unwrap_err();
        }
    }
}
