// A fake engine that costs nothing: `bench-upstream SOCKET_OR_PORT`. What a gateway adds is what is left.
//
// A chat request is answered at once. Its message may ask for more by words in its text: "tokens=N" chunks,
// "rate=R" of them a second (0: as fast as they are taken), "bytes=B" of filler in each. Each chunk of a stream
// carries the time it was made at, so that the load client can tell how long it was under way.
#include "tests/bench/net.hh"

#include <fcntl.h>
#include <sys/epoll.h>

#include <cerrno>
#include <queue>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace torpor::bench {
namespace {

constexpr size_t waiting_bytes_max = 256 * 1024;  // of a stream that is not read fast enough

struct Stream {
    int64_t tokens_left = 0;
    int64_t gap_ns = 0;  // 0: unpaced
    int64_t next_ns = 0;
    std::string filler;
};

struct Peer {
    std::string in, out;
    Stream stream;
    bool streaming = false;
    bool wants_write = false;
    bool closes = false;  // after what is still to be sent
    uint64_t serial = 0;  // a descriptor's number comes again; a timer names both
};

struct Due {
    int64_t at_ns;
    int fd;
    uint64_t serial;
    bool operator>(const Due& other) const { return at_ns > other.at_ns; }
};

class Upstream {
  public:
    explicit Upstream(const std::string& where) : address_(parse_address(where)) {
        if (address_.is_unix) ::unlink(where.c_str());
        listening_ = ::socket(address_.bytes.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
        const int on = 1;
        ::setsockopt(listening_, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
        if (::bind(listening_, reinterpret_cast<sockaddr*>(&address_.bytes), address_.size) != 0) die(where);
        if (::listen(listening_, 4096) != 0) die(where);
        epoll_ = ::epoll_create1(EPOLL_CLOEXEC);
        arm(listening_, EPOLLIN, EPOLL_CTL_ADD);
    }

    [[noreturn]] void run() {
        std::vector<epoll_event> events(256);
        for (;;) {
            timespec wait{}, *until = nullptr;
            if (!due_.empty()) {
                const int64_t left = std::max<int64_t>(0, due_.top().at_ns - now_ns());
                wait = {left / 1'000'000'000, left % 1'000'000'000};
                until = &wait;
            }
            const int count = ::epoll_pwait2(epoll_, events.data(), static_cast<int>(events.size()), until, nullptr);
            for (int i = 0; i < count; ++i) {
                const int fd = events[static_cast<size_t>(i)].data.fd;
                if (fd == listening_) {
                    accept_all();
                } else {
                    on_event(fd, events[static_cast<size_t>(i)].events);
                }
            }
            send_what_is_due();
        }
    }

  private:
    void arm(int fd, uint32_t what, int operation) {
        epoll_event event{};
        event.events = what;
        event.data.fd = fd;
        ::epoll_ctl(epoll_, operation, fd, &event);
    }

    void accept_all() {
        for (;;) {
            const int fd = ::accept4(listening_, nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK);
            if (fd < 0) return;
            without_delay(fd, address_);
            peers_[fd].serial = ++last_serial_;
            arm(fd, EPOLLIN | EPOLLRDHUP, EPOLL_CTL_ADD);
        }
    }

    void forget(int fd) {
        peers_.erase(fd);
        ::close(fd);
    }

    void on_event(int fd, uint32_t what) {
        const auto found = peers_.find(fd);
        if (found == peers_.end()) return;
        Peer& peer = found->second;
        if ((what & EPOLLIN) != 0) {
            char bytes[16 * 1024];
            const ssize_t count = ::recv(fd, bytes, sizeof bytes, 0);
            if (count == 0 || (count < 0 && errno != EAGAIN)) return forget(fd);
            if (count > 0) peer.in.append(bytes, static_cast<size_t>(count));
            while (!peer.streaming && take_request(fd, peer)) {
            }
        } else if ((what & (EPOLLHUP | EPOLLERR | EPOLLRDHUP)) != 0) {
            return forget(fd);
        }
        if (peer.streaming && peer.stream.gap_ns == 0) fill(peer);
        flush(fd, peer);
    }

    // One whole request, if it has come.
    bool take_request(int fd, Peer& peer) {
        const size_t end = peer.in.find("\r\n\r\n");
        if (end == std::string::npos) return false;
        std::string head = peer.in.substr(0, end + 2);
        for (char& letter : head) letter = static_cast<char>(std::tolower(static_cast<unsigned char>(letter)));
        const size_t length = static_cast<size_t>(number_after(head, "content-length:", 0));
        if (peer.in.size() < end + 4 + length) {
            if (head.find("expect: 100") != std::string::npos && peer.in.size() == end + 4) peer.out += "HTTP/1.1 100 Continue\r\n\r\n";
            return false;
        }
        const std::string body = peer.in.substr(end + 4, length);
        peer.closes = head.find("\r\nconnection: close") != std::string::npos;
        peer.in.erase(0, end + 4 + length);
        answer(fd, peer, head, body);
        return true;
    }

    static void whole(Peer& peer, std::string_view body) {
        peer.out += "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: " + std::to_string(body.size()) + "\r\n\r\n";
        peer.out += body;
    }

    void answer(int fd, Peer& peer, const std::string& head, const std::string& body) {
        if (head.starts_with("get /v1/models")) {
            return whole(peer, R"({"object":"list","data":[{"id":"bench","object":"model","created":1700000000,"owned_by":"bench"}]})");
        }
        if (head.starts_with("get ")) return whole(peer, R"({"status":"ok"})");
        const size_t asked = body.find("\"stream\"");
        const bool streamed = asked != std::string::npos && body.substr(asked + 8, 8).find("true") != std::string::npos;
        if (!streamed) {
            return whole(peer, R"({"id":"chatcmpl-bench","object":"chat.completion","created":1700000000,"model":"bench",)"
                               R"("choices":[{"index":0,"message":{"role":"assistant","content":"A short answer that was ready before )"
                               R"(it was asked for."},"finish_reason":"stop"}],"usage":{"prompt_tokens":9,"completion_tokens":12,)"
                               R"("total_tokens":21}})");
        }
        const int64_t rate = number_after(body, "rate=", 0);
        peer.streaming = true;
        peer.stream = {.tokens_left = number_after(body, "tokens=", 8),
                       .gap_ns = rate == 0 ? 0 : 1'000'000'000 / rate,
                       .next_ns = now_ns(),
                       .filler = std::string(static_cast<size_t>(number_after(body, "bytes=", 4)), 'x')};
        peer.out += "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";
        if (rate == 0) return fill(peer);
        due_.push({peer.stream.next_ns, fd, peer.serial});
    }

    static void chunk(Peer& peer, std::string_view event) {
        char size[16];
        std::snprintf(size, sizeof size, "%zx\r\n", event.size());
        peer.out += size;
        peer.out += event;
        peer.out += "\r\n";
    }

    static std::string event(std::string_view delta, std::string_view finish) {
        std::string text = R"(data: {"id":"chatcmpl-bench","object":"chat.completion.chunk","created":1700000000,"model":"bench",)"
                           R"("choices":[{"index":0,"delta":{)";
        text += delta;
        text += "},\"finish_reason\":";
        text += finish;
        return text + "}]}\n\n";
    }

    // One token, and after the last one the end of the stream.
    static void token(Peer& peer) {
        char stamp[32];
        std::snprintf(stamp, sizeof stamp, "@%019lld ", static_cast<long long>(now_ns()));
        chunk(peer, event("\"content\":\"" + (stamp + peer.stream.filler) + "\"", "null"));
        if (--peer.stream.tokens_left > 0) return;
        chunk(peer, event("", "\"stop\""));
        chunk(peer, "data: [DONE]\n\n");
        peer.out += "0\r\n\r\n";
        peer.streaming = false;
    }

    static void fill(Peer& peer) {
        while (peer.streaming && peer.out.size() < waiting_bytes_max) token(peer);
    }

    void send_what_is_due() {
        const int64_t now = now_ns();
        while (!due_.empty() && due_.top().at_ns <= now) {
            const Due due = due_.top();
            due_.pop();
            const auto found = peers_.find(due.fd);
            if (found == peers_.end() || found->second.serial != due.serial || !found->second.streaming) continue;
            Peer& peer = found->second;
            if (peer.out.size() < waiting_bytes_max) token(peer);
            peer.stream.next_ns += peer.stream.gap_ns;
            if (peer.streaming) due_.push({peer.stream.next_ns, due.fd, due.serial});
            flush(due.fd, peer);
        }
    }

    void flush(int fd, Peer& peer) {
        while (!peer.out.empty()) {
            const ssize_t sent = ::send(fd, peer.out.data(), peer.out.size(), MSG_NOSIGNAL);
            if (sent < 0 && errno == EAGAIN) break;
            if (sent < 0) return forget(fd);
            peer.out.erase(0, static_cast<size_t>(sent));
        }
        const bool wants_write = !peer.out.empty();
        if (peer.closes && !wants_write && !peer.streaming) return forget(fd);
        if (wants_write == peer.wants_write) return;
        peer.wants_write = wants_write;
        arm(fd, EPOLLIN | EPOLLRDHUP | (wants_write ? EPOLLOUT : 0U), EPOLL_CTL_MOD);
    }

    Address address_;
    int listening_ = -1, epoll_ = -1;
    uint64_t last_serial_ = 0;
    std::unordered_map<int, Peer> peers_;
    std::priority_queue<Due, std::vector<Due>, std::greater<>> due_;
};

}  // namespace
}  // namespace torpor::bench

int main(int argc, char** argv) {
    if (argc != 2) {
        std::fputs("usage: bench-upstream SOCKET_OR_PORT\n", stderr);
        return 2;
    }
    torpor::bench::lift_descriptor_limit();
    torpor::bench::Upstream(argv[1]).run();
}
