#include "base/http/tls.hh"

#include "base/fd.hh"
#include "base/log.hh"

#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <fcntl.h>
#include <poll.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <ctime>
#include <utility>

namespace torpor::http {

namespace {

constexpr size_t record_bytes_max = 16 * 1024;  // TLS's own

// The oldest of this thread's errors, in OpenSSL's words; forgets all of them.
std::string take_reason() {
    const unsigned long code = ERR_peek_error();
    ERR_clear_error();
    if (ERR_SYSTEM_ERROR(code)) return std::strerror(static_cast<int>(ERR_GET_REASON(code)));
    const char* reason = ERR_reason_error_string(code);
    return reason != nullptr ? reason : "no reason was given";
}

Failure fail_openssl(std::string message) {
    return Failure(Error{Kind::invalid, std::move(message), take_reason()});
}

// A daemon cannot be asked for a passphrase; OpenSSL would ask at the terminal.
int refuse_passphrase(char*, int, int, void*) {
    return -1;
}

// As PostgreSQL and ssh have it: ours alone, or root's and for a group that it chose.
Result<void> check_key_file(int fd, const std::filesystem::path& path) {
    struct stat info{};
    if (::fstat(fd, &info) != 0) return fail_errno(Kind::internal, fmt::format("cannot look at {}", path.string()));
    if (!S_ISREG(info.st_mode)) return fail(Kind::invalid, "{} is not a file", path.string());
    if (info.st_uid != ::geteuid() && info.st_uid != 0) {
        return fail(Kind::invalid, "the key {} belongs to another user (uid {}), who could change it: chown it", path.string(), info.st_uid);
    }
    const mode_t allowed = info.st_uid == 0 ? S_IRGRP : 0;
    if ((info.st_mode & 077 & ~allowed) != 0) {
        return fail(Kind::invalid, "the key {} can be read by other users: chmod 600 {}", path.string(), path.string());
    }
    return {};
}

using Key = std::unique_ptr<EVP_PKEY, decltype(&EVP_PKEY_free)>;

Result<Key> read_key(const std::filesystem::path& path) {
    const Fd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
    if (!fd) return fail_errno(Kind::invalid, fmt::format("cannot read the key {}", path.string()));
    if (auto checked = check_key_file(fd.get(), path); !checked) return Failure(checked.error());
    const std::unique_ptr<BIO, decltype(&BIO_free)> file(BIO_new_fd(fd.get(), BIO_NOCLOSE), BIO_free);
    Key key(PEM_read_bio_PrivateKey(file.get(), nullptr, refuse_passphrase, nullptr), EVP_PKEY_free);
    if (!key) return fail_openssl(fmt::format("{} holds no key in PEM without a passphrase", path.string()));
    return key;
}

Certificate::Time time_of(const ASN1_TIME* time) {
    std::tm utc{};
    ASN1_TIME_to_tm(time, &utc);
    return std::chrono::system_clock::from_time_t(::timegm(&utc));
}

// HTTP/1.1 is all there is; who offers protocols without it is told so.
int choose_protocol(SSL*, const unsigned char** chosen, unsigned char* chosen_size, const unsigned char* offered, unsigned int offered_size, void*) {
    static constexpr unsigned char known[] = "\x08http/1.1\x08http/1.0";
    unsigned char* found = nullptr;
    if (SSL_select_next_proto(&found, chosen_size, known, sizeof known - 1, offered, offered_size) != OPENSSL_NPN_NEGOTIATED) {
        return SSL_TLSEXT_ERR_ALERT_FATAL;
    }
    *chosen = found;
    return SSL_TLSEXT_ERR_OK;
}

void set_options(SSL_CTX* context) {
    SSL_CTX_set_min_proto_version(context, TLS1_2_VERSION);
    SSL_CTX_set_options(context, SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION | SSL_OP_CIPHER_SERVER_PREFERENCE);
    SSL_CTX_set_mode(context, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER | SSL_MODE_RELEASE_BUFFERS);
    SSL_CTX_clear_mode(context, SSL_MODE_AUTO_RETRY);  // or a flood of records without content would hold a thread
    SSL_CTX_set_session_cache_mode(context, SSL_SESS_CACHE_OFF);
    SSL_CTX_set_alpn_select_cb(context, choose_protocol, nullptr);
}

}  // namespace

Result<std::shared_ptr<const Certificate>> Certificate::load(const std::filesystem::path& chain, const std::filesystem::path& key_file) {
    ERR_clear_error();
    const auto made = std::make_shared<Certificate>(Passkey{}, SSL_CTX_new(TLS_server_method()));
    SSL_CTX* context = made->context_;
    if (context == nullptr) return fail_openssl("TLS cannot be set up");
    set_options(context);
    if (::access(chain.c_str(), R_OK) != 0) return fail_errno(Kind::invalid, fmt::format("cannot read the certificate {}", chain.string()));
    if (SSL_CTX_use_certificate_chain_file(context, chain.c_str()) != 1) {
        return fail_openssl(fmt::format("{} holds no certificate that can be used", chain.string()));
    }
    auto key = read_key(key_file);
    if (!key) return Failure(key.error());
    if (SSL_CTX_use_PrivateKey(context, key->get()) != 1 || SSL_CTX_check_private_key(context) != 1) {
        return fail_openssl(fmt::format("the key {} is not that of the certificate {}", key_file.string(), chain.string()));
    }
    const X509* own = SSL_CTX_get0_certificate(context);
    made->begins_ = time_of(X509_get0_notBefore(own));
    made->ends_ = time_of(X509_get0_notAfter(own));
    return made;
}

Certificate::~Certificate() {
    SSL_CTX_free(context_);
}

TlsSession::TlsSession(const Certificate& certificate, int socket)
    : session_(SSL_new(certificate.context())), receive_events_(POLLIN), send_events_(POLLOUT) {
    is_broken_ = session_ == nullptr || SSL_set_fd(session_, socket) != 1;
    if (session_ != nullptr) SSL_set_accept_state(session_);
}

TlsSession::~TlsSession() {
    say_goodbye();
    SSL_free(session_);
}

void TlsSession::say_goodbye() {
    if (!is_open_ || is_broken_ || has_unsent_ || std::exchange(said_goodbye_, true)) return;
    ERR_clear_error();
    SSL_shutdown(session_);
    ERR_clear_error();
}

// As errno has it. Afterwards the session is broken, unless it was EAGAIN or the end.
ssize_t TlsSession::result_of(int result, short& events) {
    const int code = errno;
    switch (SSL_get_error(session_, result)) {
        case SSL_ERROR_WANT_READ: events = POLLIN; break;
        case SSL_ERROR_WANT_WRITE: events = POLLOUT; break;
        case SSL_ERROR_ZERO_RETURN: return 0;
        default:
            is_broken_ = true;
            errno = code == 0 || code == EAGAIN ? ECONNRESET : code;
            return -1;
    }
    errno = EAGAIN;
    return -1;
}

TlsSession::Handshake TlsSession::shake_hands() {
    if (!is_usable()) return Handshake::failed;
    const int result = SSL_accept(session_);
    if (result == 1) {
        is_open_ = true;
        receive_events_ = POLLIN;
        return Handshake::done;
    }
    if (result_of(result, receive_events_) < 0 && errno == EAGAIN) return Handshake::waits;
    is_broken_ = true;
    const bool is_plain_http = ERR_GET_REASON(ERR_peek_error()) == SSL_R_HTTP_REQUEST;
    log::debug("a TLS handshake failed: {}", take_reason());
    return is_plain_http ? Handshake::is_plain_http : Handshake::failed;
}

// Before each call: what is left of an earlier one's errors, here or of another session, would be taken for its own.
bool TlsSession::is_usable() const {
    ERR_clear_error();
    errno = is_broken_ ? ECONNRESET : 0;
    return !is_broken_;
}

ssize_t TlsSession::receive(char* to, size_t size) {
    if (!is_usable()) return -1;
    size_t count = 0;
    const int result = SSL_read_ex(session_, to, size, &count);
    if (result == 1) {
        receive_events_ = POLLIN;
        return static_cast<ssize_t>(count);
    }
    return result_of(result, receive_events_);
}

ssize_t TlsSession::send(std::string_view head, std::string_view rest) {
    if (head.empty()) return send_one(rest);
    if (rest.empty()) return send_one(head);
    // Both in one record, and so in one packet.
    std::array<char, record_bytes_max> joined;
    const size_t of_head = std::min(head.size(), joined.size());
    const size_t of_rest = std::min(rest.size(), joined.size() - of_head);
    std::memcpy(joined.data(), head.data(), of_head);
    std::memcpy(joined.data() + of_head, rest.data(), of_rest);
    return send_one({joined.data(), of_head + of_rest});
}

ssize_t TlsSession::send_one(std::string_view bytes) {
    if (!is_usable()) return -1;
    size_t count = 0;
    const int result = SSL_write_ex(session_, bytes.data(), bytes.size(), &count);
    has_unsent_ = result != 1;
    if (result == 1) {
        send_events_ = POLLOUT;
        return static_cast<ssize_t>(count);
    }
    const ssize_t failed = result_of(result, send_events_);
    if (failed == 0) {  // the peer has said goodbye: nobody would read it
        is_broken_ = true;
        errno = ECONNRESET;
    }
    return -1;
}

bool TlsSession::has_pending() const {
    return !is_broken_ && SSL_pending(session_) > 0;
}

}  // namespace torpor::http
