// The load client: `bench-load ADDRESS MODE [--key K] [--model M] ...`; it prints one line of JSON.
//
//   latency     one keep-alive client asks --requests times, --stream or whole
//   throughput  --clients keep-alive clients ask for --seconds
//   paced       --clients streams of --rate tokens a second for --seconds; how late each token is
//   idle        holds --clients connections that have asked once, until standard input closes
//   slow        holds --clients streams that are hardly read, until standard input closes
#include "tests/bench/net.hh"
#include "tests/bench/response.hh"

#include <fcntl.h>
#include <poll.h>
#include <sys/epoll.h>

#include <cerrno>
#include <functional>
#include <map>
#include <memory>
#include <vector>

namespace torpor::bench {
namespace {

struct Options {
    Address address;
    std::string mode, key, model = "bench";
    int requests = 1000, clients = 1, rate = 100;
    double seconds = 5;
    bool stream = false;
};

std::string request_for(const Options& options, bool stream, const std::string& words) {
    std::string body = R"({"model":")" + options.model + R"(","messages":[{"role":"user","content":"Say something. )" + words + "\"}]";
    if (stream) body += ",\"stream\":true";
    body += "}";
    std::string request = "POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n";
    if (!options.key.empty()) request += "Authorization: Bearer " + options.key + "\r\n";
    return request + "Content-Length: " + std::to_string(body.size()) + "\r\n\r\n" + body;
}

struct Client {
    int fd = -1;
    std::string request;
    size_t sent = 0;
    bool is_asking = false;
    bool reads = true;  // false: what comes is left in the socket
    Response response;
    std::string body;   // what came since the last look
    int64_t began_ns = 0, first_ns = 0;
    std::string carry;  // a token's stamp may come in two pieces
};

class Load {
  public:
    explicit Load(Options options) : options_(std::move(options)), epoll_(::epoll_create1(EPOLL_CLOEXEC)) {}

    int run() {
        if (options_.mode == "latency") return latency();
        if (options_.mode == "throughput") return throughput();
        if (options_.mode == "paced") return paced();
        if (options_.mode == "idle") return idle();
        if (options_.mode == "slow") return slow();
        std::fprintf(stderr, "bench-load: there is no mode %s\n", options_.mode.c_str());
        return 2;
    }

  private:
    using OnDone = std::function<void(Client&, bool ok)>;
    using OnPiece = std::function<void(Client&, int64_t now)>;

    Client& add_client(const std::string& request) {
        clients_.push_back(std::make_unique<Client>());
        clients_.back()->request = request;
        return *clients_.back();
    }

    bool open(Client& client) {
        client.fd = ::socket(options_.address.bytes.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
        if (!client.reads) {
            const int small = 4096;
            ::setsockopt(client.fd, SOL_SOCKET, SO_RCVBUF, &small, sizeof small);
        }
        if (::connect(client.fd, reinterpret_cast<sockaddr*>(&options_.address.bytes), options_.address.size) != 0) {
            ::close(client.fd);
            client.fd = -1;
            return false;
        }
        without_delay(client.fd, options_.address);
        ::fcntl(client.fd, F_SETFL, O_NONBLOCK);
        epoll_event event{};
        event.events = EPOLLIN | EPOLLRDHUP;
        event.data.ptr = &client;
        ::epoll_ctl(epoll_, EPOLL_CTL_ADD, client.fd, &event);
        return true;
    }

    static void close(Client& client) {
        if (client.fd >= 0) ::close(client.fd);
        client.fd = -1;
    }

    // Sends one request. Requests are small: one that does not fit the socket at once is an error.
    void ask(Client& client) {
        client.response = Response();
        client.body.clear();
        client.carry.clear();
        client.first_ns = 0;
        client.began_ns = now_ns();
        client.is_asking = true;
        if (client.fd < 0) {
            ++connects_;
            if (!open(client)) return finish(client, false);
        }
        const ssize_t sent = ::send(client.fd, client.request.data(), client.request.size(), MSG_NOSIGNAL);
        if (sent == static_cast<ssize_t>(client.request.size())) return;
        close(client);
        finish(client, false);
    }

    void finish(Client& client, bool ok) {
        client.is_asking = false;
        if (ok) {
            ++done_;
        } else {
            ++errors_;
            ++error_kinds_[client.response.status];
        }
        if (client.response.closes) close(client);
        finished_.push_back({&client, ok});  // told later, so that asking again cannot recurse
    }

    void tell_finished() {
        while (!finished_.empty()) {
            const auto [client, ok] = finished_.back();
            finished_.pop_back();
            if (on_done_) on_done_(*client, ok);
        }
    }

    void receive(Client& client) {
        char bytes[64 * 1024];
        const ssize_t count = ::recv(client.fd, bytes, sizeof bytes, 0);
        if (count < 0 && errno == EAGAIN) return;
        if (count <= 0) {
            close(client);
            if (client.is_asking) finish(client, false);
            return;
        }
        if (!client.is_asking) return;
        const int64_t now = now_ns();
        client.response.feed({bytes, static_cast<size_t>(count)}, client.body);
        if (client.first_ns == 0 && client.response.body_bytes > 0) client.first_ns = now;
        if (on_piece_ && client.response.status == 200) on_piece_(client, now);
        client.body.clear();
        if (client.response.is_whole) finish(client, client.response.status == 200);
    }

    // Until `is_over` says so, or the time is up.
    void loop(const std::function<bool()>& is_over, int64_t until_ns) {
        std::vector<epoll_event> events(512);
        tell_finished();
        while (!is_over()) {
            const int64_t left = until_ns - now_ns();
            if (left <= 0) return;
            const int count = ::epoll_wait(epoll_, events.data(), static_cast<int>(events.size()),
                                           static_cast<int>(std::min<int64_t>(left / 1'000'000 + 1, 100)));
            for (int i = 0; i < count; ++i) {
                Client& client = *static_cast<Client*>(events[static_cast<size_t>(i)].data.ptr);
                if (client.fd < 0) continue;
                if (client.reads) {
                    receive(client);
                } else {
                    taste(client);
                }
            }
            if (on_turn_) on_turn_();
            tell_finished();
        }
    }

    // A reader that is hardly there: one byte, then nothing more is waited for.
    void taste(Client& client) {
        char byte = 0;
        if (::recv(client.fd, &byte, 1, 0) <= 0) {
            close(client);
            ++errors_;
        } else {
            ++tasted_;
        }
        if (client.fd >= 0) ::epoll_ctl(epoll_, EPOLL_CTL_DEL, client.fd, nullptr);
    }

    static double percentile(std::vector<double>& values, double share) {
        if (values.empty()) return 0;
        std::ranges::sort(values);
        return values[std::min(values.size() - 1, static_cast<size_t>(share * static_cast<double>(values.size())))];
    }

    void print_errors() {
        std::string kinds;
        for (const auto& [status, count] : error_kinds_) {
            kinds += (kinds.empty() ? "\"" : ",\"") + std::to_string(status) + "\":" + std::to_string(count);
        }
        std::printf(",\"done\":%lld,\"errors\":%lld,\"error_statuses\":{%s},\"connects\":%lld}\n", static_cast<long long>(done_),
                    static_cast<long long>(errors_), kinds.c_str(), static_cast<long long>(connects_));
    }

    // Asks `count` times on one connection, after some that do not count.
    void measure(int count, bool stream, std::vector<double>& first, std::vector<double>& total) {
        Client& client = add_client(request_for(options_, stream, stream ? "tokens=8" : ""));
        int left = count + count / 10;
        on_done_ = [&, count](Client& which, bool ok) {
            if (&which != &client) return;
            if (ok && left <= count) {
                const int64_t now = now_ns();
                first.push_back(static_cast<double>(client.first_ns - client.began_ns) / 1000);
                total.push_back(static_cast<double>(now - client.began_ns) / 1000);
            }
            if (--left > 0) ask(client);
        };
        ask(client);
        loop([&] { return left <= 0; }, now_ns() + 60'000'000'000);
        on_done_ = nullptr;
    }

    int latency() {
        std::vector<double> first, total;
        measure(options_.requests, options_.stream, first, total);
        std::printf("{\"mode\":\"latency\",\"first_p50_us\":%.1f,\"first_p99_us\":%.1f,\"total_p50_us\":%.1f,\"total_p99_us\":%.1f",
                    percentile(first, 0.5), percentile(first, 0.99), percentile(total, 0.5), percentile(total, 0.99));
        print_errors();
        return 0;
    }

    int throughput() {
        on_done_ = [this](Client& client, bool) { ask(client); };
        const std::string request = request_for(options_, options_.stream, options_.stream ? "tokens=8" : "");
        for (int i = 0; i < options_.clients; ++i) ask(add_client(request));
        const int64_t start = now_ns(), warm = start + 500'000'000;
        loop([] { return false; }, warm);
        const int64_t before = done_;
        loop([] { return false; }, warm + static_cast<int64_t>(options_.seconds * 1e9));
        const double took = static_cast<double>(now_ns() - warm) / 1e9;
        std::printf("{\"mode\":\"throughput\",\"clients\":%d,\"per_second\":%.0f", options_.clients,
                    static_cast<double>(done_ - before) / took);
        print_errors();
        return 0;
    }

    // All stamps in what came: "@" and 19 digits.
    void take_stamps(Client& client, int64_t now, std::vector<double>& late) {
        client.carry += client.body;
        size_t at = 0, next = 0;
        while ((at = client.carry.find('@', next)) != std::string::npos && at + 20 <= client.carry.size()) {
            late.push_back(static_cast<double>(now - std::atoll(client.carry.c_str() + at + 1)) / 1000);
            next = at + 20;
        }
        client.carry.erase(0, at == std::string::npos ? client.carry.size() : at);
    }

    int paced() {
        const int tokens = static_cast<int>(options_.rate * options_.seconds);
        const std::string request = request_for(options_, true, "tokens=" + std::to_string(tokens) + " rate=" + std::to_string(options_.rate));
        std::vector<double> late;
        late.reserve(static_cast<size_t>(tokens) * static_cast<size_t>(options_.clients));
        on_piece_ = [&](Client& client, int64_t now) { take_stamps(client, now, late); };
        int ended = 0;
        on_done_ = [&](Client&, bool) { ++ended; };
        for (int i = 0; i < options_.clients; ++i) add_client(request);
        // Not all in one moment: tokens of real streams do not come in step either.
        int started = 0;
        const int64_t start = now_ns();
        on_turn_ = [&] {
            while (started < options_.clients && now_ns() - start > started * 3'900'000LL) ask(*clients_[static_cast<size_t>(started++)]);
        };
        on_turn_();
        loop([&] { return ended == options_.clients; }, now_ns() + static_cast<int64_t>((options_.seconds + 20) * 1e9));
        std::printf("{\"mode\":\"paced\",\"clients\":%d,\"tokens\":%zu,\"tokens_wanted\":%lld,\"late_p50_us\":%.1f,\"late_p99_us\":%.1f,"
                    "\"late_max_us\":%.1f",
                    options_.clients, late.size(), static_cast<long long>(tokens) * options_.clients, percentile(late, 0.5),
                    percentile(late, 0.99), percentile(late, 1));
        print_errors();
        return 0;
    }

    // Until whoever started us has measured.
    static void hold() {
        std::puts("ready");
        std::fflush(stdout);
        char byte = 0;
        (void)!::read(0, &byte, 1);
    }

    int idle() {
        for (int i = 0; i < options_.clients; ++i) {
            Client& client = add_client(request_for(options_, false, ""));
            ask(client);
            loop([&] { return !client.is_asking; }, now_ns() + 10'000'000'000);
        }
        hold();
        loop([] { return false; }, now_ns() + 200'000'000);
        int open = 0;
        for (const auto& client : clients_) open += client->fd >= 0 ? 1 : 0;
        std::printf("{\"mode\":\"idle\",\"clients\":%d,\"still_open\":%d", options_.clients, open);
        print_errors();
        return 0;
    }

    // Whether the other side has closed; what it sent before may still be unread.
    static bool has_ended(int fd) {
        pollfd wait{fd, POLLRDHUP, 0};
        return ::poll(&wait, 1, 0) > 0;
    }

    int slow() {
        const std::string request = request_for(options_, true, "tokens=1000000 bytes=1000");
        for (int i = 0; i < options_.clients; ++i) {
            Client& client = add_client(request);
            client.reads = false;
            ask(client);
        }
        loop([this] { return tasted_ + errors_ == options_.clients; }, now_ns() + 30'000'000'000);
        hold();
        int open = 0;
        for (const auto& client : clients_) open += client->fd >= 0 && !has_ended(client->fd) ? 1 : 0;
        std::printf("{\"mode\":\"slow\",\"clients\":%d,\"streams\":%lld,\"still_open\":%d", options_.clients,
                    static_cast<long long>(tasted_), open);
        print_errors();
        return 0;
    }

    Options options_;
    int epoll_;
    std::vector<std::unique_ptr<Client>> clients_;
    std::vector<std::pair<Client*, bool>> finished_;
    OnDone on_done_;
    OnPiece on_piece_;
    std::function<void()> on_turn_;
    int64_t done_ = 0, errors_ = 0, connects_ = 0, tasted_ = 0;
    std::map<int, int64_t> error_kinds_;  // by status; 0: no answer
};

}  // namespace
}  // namespace torpor::bench

int main(int argc, char** argv) {
    using namespace torpor::bench;
    if (argc < 3) {
        std::fputs("usage: bench-load ADDRESS latency|throughput|paced|idle|slow [--requests N] [--clients N] [--seconds S]\n"
                   "       [--rate R] [--stream] [--key KEY] [--model MODEL]\n",
                   stderr);
        return 2;
    }
    Options options;
    options.address = parse_address(argv[1]);
    options.mode = argv[2];
    for (int i = 3; i < argc; ++i) {
        const std::string name = argv[i];
        if (name == "--stream") {
            options.stream = true;
            continue;
        }
        const std::string value = i + 1 < argc ? argv[++i] : "";
        if (name == "--requests") options.requests = std::stoi(value);
        else if (name == "--clients") options.clients = std::stoi(value);
        else if (name == "--seconds") options.seconds = std::stod(value);
        else if (name == "--rate") options.rate = std::stoi(value);
        else if (name == "--key") options.key = value;
        else if (name == "--model") options.model = value;
    }
    lift_descriptor_limit();
    return Load(std::move(options)).run();
}
