//! TLS, as the sections `restapi`, `ctl` and `etcd3` ask for it. The files are read here: what is wrong with them is a
//! mistake in the configuration, on the line that names them.

use super::super::check::Purpose;
use super::Build;
use crate::tls::{
    Ciphers, Client, ClientSettings, Identity, Part, Server, ServerSettings, Settings, Speaks, Tls, Trust, VerifyClient,
};

/// Where the files are named.
struct Names {
    authorities: &'static str,
    certificate: &'static str,
    key: &'static str,
    password: Option<&'static str>,
}

const RESTAPI: Names = Names {
    authorities: "restapi.cafile",
    certificate: "restapi.certfile",
    key: "restapi.keyfile",
    password: Some("restapi.keyfile_password"),
};
const CTL: Names = Names {
    authorities: "ctl.cacert",
    certificate: "ctl.certfile",
    key: "ctl.keyfile",
    password: Some("ctl.keyfile_password"),
};
const ETCD3: Names = Names { authorities: "etcd3.cacert", certificate: "etcd3.cert", key: "etcd3.key", password: None };

impl Build<'_, '_> {
    /// TLS of the REST API; none without a certificate.
    pub(super) fn restapi_tls(&mut self) -> Option<Server> {
        let verify_client = self.verify_client();
        let Some(identity) = self.identity(&RESTAPI) else {
            // A file that asks for certificates and is served without encryption is no slip of the pen to pass over.
            for key in [RESTAPI.key, "restapi.keyfile_password", "restapi.ciphers", "restapi.verify_client"] {
                let asks_nothing = key == "restapi.verify_client" && verify_client == VerifyClient::None;
                if self.at(key).is_some() && !asks_nothing {
                    self.suspect(key, "not used: without `certfile` the REST API is served without TLS");
                }
            }
            return None;
        };
        let authorities = self.path(RESTAPI.authorities);
        match (verify_client, &authorities) {
            (VerifyClient::Required, None) => {
                self.refuse("restapi.verify_client", "needs `cafile`: without it nobody's certificate would be good");
            }
            (VerifyClient::Optional, None) => {
                self.warn(
                    "restapi.verify_client",
                    "without `cafile` nobody's certificate is good: the unsafe endpoints are closed to everyone",
                );
            }
            (VerifyClient::Required, Some(_)) if self.text(CTL.certificate).is_none() => {
                self.warn(
                    "restapi.verify_client",
                    "agents have no certificate of their own, so the other ones turn this one away: set `ctl.certfile`",
                );
            }
            _ => {}
        }
        let ciphers = self.ciphers();
        self.load(&RESTAPI, ServerSettings { identity, authorities, verify_client, ciphers })
    }

    fn verify_client(&self) -> VerifyClient {
        match self.text("restapi.verify_client").map(str::to_ascii_lowercase).as_deref() {
            Some("optional") => VerifyClient::Optional,
            Some("required") => VerifyClient::Required,
            _ => VerifyClient::None,
        }
    }

    fn ciphers(&mut self) -> Ciphers {
        let Some(list) = self.text("restapi.ciphers") else { return Ciphers::default() };
        let ciphers = Ciphers::parse(list);
        if !ciphers.unknown.is_empty() {
            let (unknown, offered) = (ciphers.unknown.join(", "), ciphers.names().join(", "));
            self.warn(
                "restapi.ciphers",
                format!(
                    "not understood, or not in rustls: {unknown}; offered of TLS 1.2: {offered}; all of TLS 1.3 is offered"
                ),
            );
        }
        ciphers
    }

    /// TLS towards the REST API of members. As with Patroni agents take any server, unless they have a certificate of
    /// their own: then an authority must have signed the server's, whatever its name. ctl verifies both, unless it is
    /// told to be `insecure`: then it does as the agents.
    pub(super) fn ctl_tls(&mut self) -> Option<Client> {
        let settings = self.ctl_tls_settings();
        let names = match self.path(CTL.authorities) {
            Some(_) => CTL,
            None => Names { authorities: RESTAPI.authorities, ..CTL },
        };
        self.load(&names, settings)
    }

    /// As [`Self::ctl_tls`], with the files not read: most commands need the store only, and a person may not be allowed
    /// to read them.
    pub(in super::super) fn ctl_tls_settings(&mut self) -> ClientSettings {
        let insecure = self.flag("ctl.insecure").unwrap_or(false);
        let identity = self.identity(&CTL);
        if identity.is_none() {
            self.needs_certificate(&CTL);
        }
        // A file that only ctl reads is validated as well.
        let trust = match (self.purpose != Purpose::Run && !insecure, &identity) {
            (true, _) => Trust::Name,
            (false, Some(_)) => Trust::Chain,
            (false, None) => Trust::Anyone,
        };
        let authorities = self.path(CTL.authorities).or_else(|| self.path(RESTAPI.authorities));
        ClientSettings { authorities, identity, trust, speaks: Speaks::Http1 }
    }

    /// TLS towards the store, if `https` is spoken with it.
    pub(super) fn etcd3_tls(&mut self, https: bool) -> Option<Client> {
        if !https {
            for key in [ETCD3.authorities, ETCD3.certificate, ETCD3.key] {
                if self.at(key).is_some() {
                    self.suspect(key, "not used: without `protocol: https` there is no TLS to the store");
                }
            }
            return None;
        }
        let identity = self.identity(&ETCD3);
        if identity.is_none() {
            self.needs_certificate(&ETCD3);
        }
        let authorities = self.path(ETCD3.authorities);
        self.load(&ETCD3, ClientSettings { authorities, identity, trust: Trust::Name, speaks: Speaks::Http2 })
    }

    fn identity(&self, names: &Names) -> Option<Identity> {
        Some(Identity {
            certificate: self.path(names.certificate)?,
            key: self.path(names.key),
            password: names.password.and_then(|key| self.secret(key)),
        })
    }

    fn needs_certificate(&mut self, names: &Names) {
        if self.at(names.key).is_some() {
            self.suspect(names.key, format!("not used: a key needs its certificate, `{}`", names.certificate));
        }
    }

    fn load<S: Settings + Clone>(&mut self, names: &Names, settings: S) -> Option<Tls<S>> {
        let unusable = match Tls::load(settings) {
            Ok(tls) => return Some(tls),
            Err(unusable) => unusable,
        };
        let named = match unusable.part {
            Part::Authorities => Some(names.authorities),
            Part::Certificate => Some(names.certificate),
            Part::Key => Some(names.key),
            Part::Password => names.password,
        };
        // A key that stands in the certificate's file has no line of its own.
        let path = named.filter(|key| self.at(key).is_some()).unwrap_or(names.certificate);
        self.refuse(path, unusable.why);
        None
    }
}
