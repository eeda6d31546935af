#include "daemon/certificate.hh"

#include "base/log.hh"

namespace torpor {

namespace {

constexpr std::chrono::days warning_time{14};  // to get another one, or to find out why none was got

std::string date_of(http::Certificate::Time time) {
    return log::time_text(time).substr(0, 10);
}

}  // namespace

Result<std::shared_ptr<const http::Certificate>> load_certificate(const Folders& folders, const HttpConfig& config) {
    if (config.certificate.empty()) return nullptr;
    auto loaded = http::Certificate::load(folders.config / config.certificate, folders.config / config.key);
    if (!loaded) return loaded;
    const CertificateHealth health = health_of(**loaded, std::chrono::system_clock::now());
    if (!health.is_well) log::warning("the certificate {} {}", config.certificate, health.text);
    return loaded;
}

CertificateHealth health_of(const http::Certificate& certificate, http::Certificate::Time now) {
    const auto left = std::chrono::floor<std::chrono::days>(certificate.ends() - now);
    if (certificate.begins() > now) return {false, fmt::format("is not valid before {}", date_of(certificate.begins()))};
    if (certificate.ends() <= now) {
        return {false, fmt::format("expired on {}: put another in its place, then torpor reload", date_of(certificate.ends()))};
    }
    const bool is_well = left >= warning_time;
    return {is_well, fmt::format("is valid until {} (for {} days){}", date_of(certificate.ends()), left.count(),
                                 is_well ? "" : ": put another in its place, then torpor reload")};
}

}  // namespace torpor
