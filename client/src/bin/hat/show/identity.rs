//! Who the caller is, in lines.

use sortinghat_proto::v1::WhoAmIResponse;

use super::numbers::time;

/// The identity, what it may do, and until when.
pub(crate) fn lines(identity: &WhoAmIResponse) -> Vec<String> {
    let WhoAmIResponse { id, role, tenant, serves, expires_unix_ms, certificate } = identity;
    if role == "everyone" {
        return vec![format!(
            "the server has no tokens file: everybody who reaches it may do everything, for the tenant {tenant}"
        )];
    }
    let proof = match certificate.as_str() {
        "" => "a token".to_owned(),
        name => format!("a certificate for {name}"),
    };
    let mut lines = vec![format!("you are {id}, with the role {role}, known by {proof}")];
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
        let what = if certificate.is_empty() { "token" } else { "certificate" };
        lines.push(format!("your {what} is valid until {}", time(*expires_unix_ms)));
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_caller_is_told_by_what_it_is_known_what_that_lets_it_do_and_until_when() {
        let told = |role: &str, tenant: &str, serves: &[&str], expires_unix_ms, certificate: &str| {
            let identity = WhoAmIResponse {
                id: "anna".into(),
                role: role.into(),
                tenant: tenant.into(),
                serves: serves.iter().map(ToString::to_string).collect(),
                expires_unix_ms,
                certificate: certificate.into(),
            };
            lines(&identity).join("\n")
        };
        insta::assert_snapshot!(
            [
                told("user", "lab", &[], 1_800_000_000_000, ""),
                told("admin", "lab", &["lab"], 0, ""),
                told("worker", "", &["lab", "museum"], 1_800_000_000_000, "spiffe://lab/gpu-1"),
                told("operator", "", &[], 0, ""),
                told("everyone", "local", &["*"], 0, ""),
            ]
            .join("\n\n"),
            @r"
        you are anna, with the role user, known by a token
        you see the jobs, names and objects of the tenant lab
        your token is valid until 2027-01-15 08:00:00Z

        you are anna, with the role admin, known by a token
        you see the jobs, names and objects of the tenant lab
        as a worker you may run the tasks of lab

        you are anna, with the role worker, known by a certificate for spiffe://lab/gpu-1
        as a worker you may run the tasks of lab, museum
        your certificate is valid until 2027-01-15 08:00:00Z

        you are anna, with the role operator, known by a token
        you look after the workers and queues of all tenants, and see no photo and no result

        the server has no tokens file: everybody who reaches it may do everything, for the tenant local
        "
        );
    }
}
