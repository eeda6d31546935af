// The certificate of the TCP port, as config.toml names it.
#pragma once

#include "base/error.hh"
#include "base/folders.hh"
#include "base/http/tls.hh"
#include "daemon/config.hh"

#include <memory>
#include <string>

namespace torpor {

// Null where config.toml names none. Paths may be relative to config.toml's folder. Errors as Certificate::load.
Result<std::shared_ptr<const http::Certificate>> load_certificate(const Folders& folders, const HttpConfig& config);

struct CertificateHealth {
    bool is_well;      // valid, and for some weeks to come
    std::string text;  // "valid until 2027-01-31 (in 200 days)"
};
CertificateHealth health_of(const http::Certificate& certificate, http::Certificate::Time now);

}  // namespace torpor
