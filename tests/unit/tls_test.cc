// Certificates as files, and a session against OpenSSL's own client over a pair of sockets: what HTTP tests do not meet.
#include "base/fd.hh"
#include "base/http/tls.hh"
#include "daemon/certificate.hh"
#include "temporary_folder.hh"

#include <doctest/doctest.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509.h>
#include <poll.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include <cerrno>

using namespace torpor;
using http::Certificate;
using http::TlsSession;

namespace {

// A certificate for nobody that signs itself, from `begin` to `end` seconds from now, and its key (0600).
void write_pem(const TemporaryFolder& folder, const std::string& name, long begin, long end) {
    EVP_PKEY* key = EVP_EC_gen("P-256");
    X509* certificate = X509_new();
    ASN1_INTEGER_set(X509_get_serialNumber(certificate), 1);
    X509_gmtime_adj(X509_getm_notBefore(certificate), begin);
    X509_gmtime_adj(X509_getm_notAfter(certificate), end);
    X509_set_pubkey(certificate, key);
    X509_sign(certificate, key, EVP_sha256());
    const auto write = [&](const std::string& file, auto what) {
        FILE* out = fopen((folder / file).c_str(), "w");
        what(out);
        fclose(out);
        ::chmod((folder / file).c_str(), 0600);
    };
    write(name + ".pem", [&](FILE* out) { PEM_write_X509(out, certificate); });
    write(name + ".key", [&](FILE* out) { PEM_write_PrivateKey(out, key, nullptr, nullptr, 0, nullptr, nullptr); });
    write(name + ".locked", [&](FILE* out) { PEM_write_PKCS8PrivateKey(out, key, EVP_aes_128_cbc(), "word", 4, nullptr, nullptr); });
    X509_free(certificate);
    EVP_PKEY_free(key);
}

constexpr long day = 86'400;

std::string why_not(const TemporaryFolder& folder, std::string_view chain, std::string_view key) {
    const auto loaded = Certificate::load(folder / chain, folder / key);
    return loaded ? "loaded" : loaded.error().text();
}

// Both ends of one connection, each taking a step at a time.
struct Pair {
    explicit Pair(int version = TLS1_3_VERSION) {
        ::signal(SIGPIPE, SIG_IGN);
        write_pem(folder, "a", -1, 30 * day);
        int ends[2];
        REQUIRE(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, ends) == 0);
        ours = Fd(ends[0]);
        theirs = Fd(ends[1]);
        certificate = *Certificate::load(folder / "a.pem", folder / "a.key");
        server = std::make_unique<TlsSession>(*certificate, ours.get());
        context = SSL_CTX_new(TLS_client_method());
        SSL_CTX_set_max_proto_version(context, version);
        SSL_CTX_set_cipher_list(context, "DEFAULT@SECLEVEL=0");
        client = SSL_new(context);
        SSL_set_fd(client, theirs.get());
        SSL_set_connect_state(client);
    }
    ~Pair() {
        SSL_free(client);
        SSL_CTX_free(context);
    }
    TlsSession::Handshake shake() {
        auto step = TlsSession::Handshake::waits;
        for (int i = 0; i < 10 && step == TlsSession::Handshake::waits; ++i) {
            SSL_do_handshake(client);
            step = server->shake_hands();
        }
        return step;
    }
    // What the client has to read by now.
    std::string read() {
        std::string all;
        char piece[4096];
        for (int count = 0; (count = SSL_read(client, piece, sizeof piece)) > 0;) all.append(piece, static_cast<size_t>(count));
        return all;
    }

    TemporaryFolder folder;
    Fd ours, theirs;
    std::shared_ptr<const Certificate> certificate;
    std::unique_ptr<TlsSession> server;
    SSL_CTX* context = nullptr;
    SSL* client = nullptr;
};

}  // namespace

TEST_CASE("a certificate that cannot be used is named with its reason") {
    TemporaryFolder folder;
    write_pem(folder, "a", -1, 30 * day);
    write_pem(folder, "b", -1, 30 * day);
    CHECK(why_not(folder, "a.pem", "a.key") == "loaded");
    CHECK(why_not(folder, "none.pem", "a.key").find("none.pem: No such file") != std::string::npos);
    CHECK(why_not(folder, "a.pem", "none.key").find("none.key: No such file") != std::string::npos);
    CHECK(why_not(folder, "a.key", "a.key").find("holds no certificate") != std::string::npos);
    CHECK(why_not(folder, "a.pem", "a.pem").find("holds no key") != std::string::npos);
    CHECK(why_not(folder, "a.pem", "a.locked").find("without a passphrase") != std::string::npos);
    CHECK(why_not(folder, "a.pem", "b.key").find("is not that of the certificate") != std::string::npos);
    ::chmod((folder / "a.key").c_str(), 0604);
    CHECK(why_not(folder, "a.pem", "a.key").find("can be read by other users: chmod 600") != std::string::npos);
}

TEST_CASE("how a certificate is depends on the day") {
    TemporaryFolder folder;
    write_pem(folder, "a", -1, 30 * day);
    const auto certificate = *Certificate::load(folder / "a.pem", folder / "a.key");
    const auto now = std::chrono::system_clock::now();
    const auto in = [&](int days) { return health_of(*certificate, now + std::chrono::days(days)); };
    CHECK(in(0).is_well);
    CHECK(in(15).is_well);
    CHECK(!in(17).is_well);
    CHECK(in(17).text.find("(for 12 days): put another in its place") != std::string::npos);
    CHECK(!in(31).is_well);
    CHECK(in(31).text.find("expired on ") == 0);
    CHECK(!in(-1).is_well);
    CHECK(in(-1).text.find("is not valid before ") == 0);
}

TEST_CASE("bytes go both ways, and the end is said") {
    for (const int version : {TLS1_2_VERSION, TLS1_3_VERSION}) {
        Pair pair(version);
        CHECK(pair.server->is_shaking_hands());
        REQUIRE(pair.shake() == TlsSession::Handshake::done);
        CHECK(!pair.server->is_shaking_hands());
        char got[16];
        CHECK(pair.server->receive(got, sizeof got) == -1);
        CHECK(errno == EAGAIN);
        CHECK(pair.server->receive_events() == POLLIN);
        SSL_write(pair.client, "question", 8);
        CHECK(pair.server->receive(got, 3) == 3);
        CHECK(pair.server->has_pending());
        CHECK(pair.server->receive(got, sizeof got) == 5);
        CHECK(!pair.server->has_pending());
        CHECK(pair.server->send("head ", "rest") == 9);
        CHECK(pair.read() == "head rest");
        pair.server.reset();
        CHECK(pair.read().empty());
        CHECK(SSL_get_shutdown(pair.client) == SSL_RECEIVED_SHUTDOWN);
    }
}

TEST_CASE("TLS 1.1 is refused") {
    Pair pair(TLS1_1_VERSION);
    CHECK(pair.shake() == TlsSession::Handshake::failed);
    CHECK(!pair.server->is_shaking_hands());
}

TEST_CASE("what was not taken may be offered again from elsewhere, and longer") {
    Pair pair;
    REQUIRE(pair.shake() == TlsSession::Handshake::done);
    std::string sent, waiting;
    ssize_t count = 0;
    do {
        waiting = std::string(100'000, static_cast<char>('a' + sent.size() % 26));
        count = pair.server->send({}, waiting);
        if (count > 0) sent += waiting.substr(0, static_cast<size_t>(count));
    } while (count > 0);
    CHECK(errno == EAGAIN);
    CHECK(pair.server->send_events() == POLLOUT);
    waiting += "and more";
    std::string got;
    while (!waiting.empty()) {
        got += pair.read();
        const std::string elsewhere = waiting;
        count = pair.server->send({}, elsewhere);
        if (count <= 0) continue;
        sent += waiting.substr(0, static_cast<size_t>(count));
        waiting.erase(0, static_cast<size_t>(count));
    }
    got += pair.read();
    CHECK(got == sent);
}

TEST_CASE("a key update is followed, and a flood of them gives the thread back after each") {
    Pair pair;
    REQUIRE(pair.shake() == TlsSession::Handshake::done);
    char got[16];
    CHECK(pair.server->receive(got, sizeof got) == -1);
    for (int i = 0; i < 3; ++i) {
        SSL_key_update(pair.client, SSL_KEY_UPDATE_REQUESTED);
        SSL_do_handshake(pair.client);
    }
    SSL_write(pair.client, "after", 5);
    for (int i = 0; i < 3; ++i) {
        CHECK(pair.server->receive(got, sizeof got) == -1);
        CHECK(errno == EAGAIN);
        CHECK(pair.server->send({}, "x") == 1);
    }
    CHECK(pair.server->receive(got, sizeof got) == 5);
    CHECK(pair.read() == "xxx");
}

TEST_CASE("plain HTTP is told from nonsense, and a vanished peer is an error") {
    for (const auto& [text, expected] : {std::pair{"GET / HTTP/1.1\r\n\r\n", TlsSession::Handshake::is_plain_http},
                                         {"POST / HTTP/1.1\r\n\r\n", TlsSession::Handshake::is_plain_http},
                                         {"SSH-2.0-OpenSSH\r\n", TlsSession::Handshake::failed}}) {
        Pair pair;
        REQUIRE(::send(pair.theirs.get(), text, std::string_view(text).size(), 0) > 0);
        CHECK(pair.server->shake_hands() == expected);
        CHECK(pair.server->shake_hands() == TlsSession::Handshake::failed);
    }
    Pair pair;
    REQUIRE(pair.shake() == TlsSession::Handshake::done);
    pair.theirs.reset();
    char got[16];
    CHECK(pair.server->receive(got, sizeof got) == -1);
    CHECK(errno != EAGAIN);
    CHECK(pair.server->send({}, "x") == -1);
}

TEST_CASE("who offers protocols without HTTP/1.1 is turned away") {
    for (const auto& [offer, expected] : {std::pair{std::string("\x02h2\x08http/1.1"), TlsSession::Handshake::done},
                                          {std::string("\x02h2"), TlsSession::Handshake::failed}}) {
        Pair pair;
        SSL_set_alpn_protos(pair.client, reinterpret_cast<const unsigned char*>(offer.data()), static_cast<unsigned>(offer.size()));
        CHECK(pair.shake() == expected);
    }
}
