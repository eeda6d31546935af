// The whole HTTP surface: raw bytes on a connection to a real server with the daemon's hooks, as a stranger with a key
// of the widest scope that a key can have. What comes back is HTTP or nothing, the connection ends, and the next
// client is served. The one model cannot start, so no process is ever made. "KEY" in the input stands for the key.
#include "base/log.hh"
#include "daemon/catalogue.hh"
#include "daemon/daemon.hh"
#include "daemon/dispatch.hh"
#include "daemon/gateway/gateway.hh"
#include "daemon/sockets.hh"

#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <thread>

using namespace torpor;

namespace {

template <class T>
T must(Result<T> result) {
    if (result) return std::move(*result);
    std::fprintf(stderr, "%s\n", result.error().text().c_str());
    std::abort();
}

Folders make_folders() {
    std::string name = std::filesystem::temp_directory_path() / "torpor-fuzz-XXXXXX";
    const std::filesystem::path root = ::mkdtemp(name.data());
    const Folders folders{root, root, root, root, root};
    for (const auto& folder : {folders.logs(), folders.snapshots(), folders.models(), folders.workers()}) {
        std::filesystem::create_directories(folder);
    }
    log::open(folders.logs() / "torpord.log", log::Level::error);
    return folders;
}

gpu::Model unstartable() {
    std::vector<std::string> notes;
    return must(gpu::parse_model("fuzz", "engine = \"llama-server\"\npath = \"/nonexistent/fuzz.gguf\"\naliases = [\"claude\"]\n",
                                 "fuzz.toml", &notes));
}

// A daemon without its main(): the same parts in the same order.
class Instance {
  public:
    Instance() {
        pool_.set_models({unstartable()});
        if (!gateway_.start()) std::abort();
        daemon_.server = &server_;
        daemon_.begin_stop = [] {};
        if (!server_.add_listener(must(listen_on_socket(folders_.socket())), http::Door::tcp) || !server_.start()) std::abort();
        thread_ = std::thread([this] { loop_.run(); });
        key_ = must(keys_->create("fuzz", Scope::admin)).plaintext;
    }
    ~Instance() {
        server_.stop(std::chrono::milliseconds(0));
        gateway_.stop();
        loop_.stop();
        thread_.join();
        std::error_code ignored;
        std::filesystem::remove_all(folders_.state, ignored);
    }

    const std::string& key() const { return key_; }
    size_t body_bytes() const { return server_.body_bytes(); }

    Fd connect() const {
        Fd fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
        sockaddr_un address{};
        address.sun_family = AF_UNIX;
        folders_.socket().string().copy(address.sun_path, sizeof address.sun_path - 1);
        if (::connect(fd.get(), reinterpret_cast<sockaddr*>(&address), sizeof address) != 0) std::abort();
        return fd;
    }

  private:
    const Folders folders_ = make_folders();
    EventLoop loop_;
    std::unique_ptr<store::Store> store_ = must(store::Store::open(folders_.state));
    std::unique_ptr<store::Keys> keys_ = must(store::Keys::open(*store_));
    StoreCatalogue catalogue_{*store_};
    gpu::Pool pool_{loop_, {folders_, "/nonexistent/torpor-launch", {.program = {}, .hook = {}, .why_not = "this is a test"}, &catalogue_}};
    gateway::Gateway gateway_{pool_, {}, std::chrono::seconds(60), folders_.request_log()};
    Daemon daemon_{.folders = folders_, .loop = loop_, .store = *store_, .keys = *keys_, .pool = pool_, .gateway = gateway_,
                   .http_limits = {}, .tcp_state = {}, .config_mutex = {}, .config = {}, .config_error = {}, .begin_stop = {}};
    http::Server server_{make_hooks(daemon_), daemon_.http_limits};
    std::string key_;
    std::thread thread_;
};

// What comes back until the server closes.
std::string converse(const Instance& instance, std::string_view bytes) {
    const Fd fd = instance.connect();
    const size_t bytes_in = bytes.size();
    while (!bytes.empty()) {
        const ssize_t sent = ::send(fd.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL);
        if (sent <= 0) break;  // refused already
        bytes.remove_prefix(static_cast<size_t>(sent));
    }
    // Who shuts down at once is taken for gone while an engine is asked; some inputs wait for that answer, too.
    pollfd answered{fd.get(), POLLIN, 0};
    if (bytes_in % 8 == 0) ::poll(&answered, 1, 5);
    ::shutdown(fd.get(), SHUT_WR);
    std::string got;
    char piece[16 * 1024];
    for (ssize_t count = 0; (count = ::recv(fd.get(), piece, sizeof piece, 0)) > 0;) got.append(piece, static_cast<size_t>(count));
    return got;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    static Instance instance;
    static size_t runs = 0;
    std::string bytes(reinterpret_cast<const char*>(data), size);
    for (size_t at = 0; (at = bytes.find("KEY", at)) != std::string::npos; at += instance.key().size()) bytes.replace(at, 3, instance.key());
    const std::string answer = converse(instance, bytes);
    if (!answer.empty() && !answer.starts_with("HTTP/1.1 ")) std::abort();
    if (++runs % 100 == 0) {
        const std::string well = converse(instance, "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n");
        if (!well.starts_with("HTTP/1.1 200 ") || !well.ends_with("{\"ok\":true}")) std::abort();
        if (instance.body_bytes() > (size_t{1} << 20)) std::abort();  // of clients that left, for a moment at most
    }
    return 0;
}
