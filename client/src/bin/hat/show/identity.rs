//! Who the caller is, in lines.

use sortinghat_proto::v1::WhoAmIResponse;

use super::numbers::time;

/// The identity, what it may do, and until when.
pub(crate) fn lines(identity: &WhoAmIResponse) -> Vec<String> {
    let WhoAmIResponse { id, role, tenant, serves, expires_unix_ms } = identity;
    if role == "everyone" {
        return vec![format!(
            "the server has no tokens file: everybody who reaches it may do everything, for the tenant {tenant}"
        )];
    }
    let mut lines = vec![format!("you are {id}, with the role {role}")];
    if !tenant.is_empty() {
        lines.push(format!("you see the jobs, names and objects of the tenant {tenant}"));
    }
    match serves.as_slice() {
        [] => {}
        [all] if all == "*" => lines.push("as a worker you may run the tasks of every tenant".to_owned()),
        tenants => lines.push(format!("as a worker you may run the tasks of {}", tenants.join(", "))),
    }
    if role == "operator" {
        lines.push("you look after the workers and queues of all tenants, and see no photo and no result".to_owned());
    }
    if *expires_unix_ms != 0 {
        lines.push(format!("your token is valid until {}", time(*expires_unix_ms)));
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_caller_is_told_what_its_token_lets_it_do_and_until_when() {
        let told = |role: &str, tenant: &str, serves: &[&str], expires_unix_ms| {
            let serves = serves.iter().map(ToString::to_string).collect();
            let identity =
                WhoAmIResponse { id: "anna".into(), role: role.into(), tenant: tenant.into(), serves, expires_unix_ms };
            lines(&identity).join("\n")
        };
        insta::assert_snapshot!(
            [
                told("user", "lab", &[], 1_800_000_000_000),
                told("admin", "lab", &["lab"], 0),
                told("worker", "", &["lab", "museum"], 0),
                told("operator", "", &[], 0),
                told("everyone", "local", &["*"], 0),
            ]
            .join("\n\n"),
            @r"
        you are anna, with the role user
        you see the jobs, names and objects of the tenant lab
        your token is valid until 2027-01-15 08:00:00Z

        you are anna, with the role admin
        you see the jobs, names and objects of the tenant lab
        as a worker you may run the tasks of lab

        you are anna, with the role worker
        as a worker you may run the tasks of lab, museum

        you are anna, with the role operator
        you look after the workers and queues of all tenants, and see no photo and no result

        the server has no tokens file: everybody who reaches it may do everything, for the tenant local
        "
        );
    }
}
