// An HTTP/1.1 server: cpp-httplib parses requests and writes responses; connections and threads are ours.
//
// All connections wait in one epoll set, each armed for one event. A free thread takes the next event
// itself (leader and followers, no hand-over), reads without waiting until the request's head is whole,
// and only then is bound to it; so idle, slow and half-open connections cost a descriptor and no thread.
// A thread that takes an event and leaves nobody waiting starts another one first, up to
// http_threads_max; spare ones end after http_thread_idle_max. With no connection open nothing wakes up.
//
// A handler that will answer later takes the connection out of the server's hands (detach_connection), so a
// stream costs no thread either. A request that does keep its thread for long must hold a LongSlot:
// http_threads_reserve threads are left for short ones.
#pragma once

#include "base/error.hh"
#include "base/fd.hh"
#include "base/http/protocol.hh"
#include "base/http/tls.hh"

#include <atomic>
#include <chrono>
#include <functional>
#include <memory>

namespace torpor::http {

// Which door a request came through.
enum class Door { socket, tcp };

// A connection whose request was read and whose answer is somebody's to write. Any thread, one at a time.
// Destroyed without give_back(), the connection is closed.
class Detached {
  public:
    virtual ~Detached() = default;
    // Non-blocking writes only; the server does not touch it meanwhile.
    virtual int socket() const = 0;
    // Sends what the peer takes now: the number of bytes, 0 if it takes none, -1 if it is gone. What it did not take
    // must be offered again, at least as much of it, before anything else is.
    virtual ssize_t send(std::string_view bytes) = 0;
    // What to poll socket() for when it took none: POLLOUT, or POLLIN where TLS must read first.
    virtual short send_events() const = 0;
    // Whether the client wants to go on after this answer; say `Connection: close` if not.
    virtual bool keeps_alive() const = 0;
    // The answer was sent whole: the connection waits for its next request, or is closed.
    virtual void give_back() = 0;
};

using TakeConnection = std::function<void(std::unique_ptr<Detached>)>;

// The connection that the calling thread serves now; null outside a request.
struct Connection {
    Door door;
    SocketStream& stream;
    TakeConnection& taker;
};
const Connection* current_connection();

// Within Hooks::respond: what the handler leaves in its Response is not sent; once it has returned, `take`
// is called on the same thread with the connection.
void detach_connection(TakeConnection take);

// Room for one more long request. Released by destruction, from any thread.
class LongSlot {
  public:
    explicit LongSlot(std::atomic<int>* count) : count_(count) {}
    ~LongSlot() { count_->fetch_sub(1); }
    LongSlot(const LongSlot&) = delete;
    LongSlot& operator=(const LongSlot&) = delete;

  private:
    std::atomic<int>* count_;
};

class Server {
  public:
    Server(Hooks hooks, const Limits& limits);
    ~Server();
    Server(const Server&) = delete;
    Server& operator=(const Server&) = delete;

    // Serves a listening socket; takes ownership. With a certificate it speaks TLS, else plain HTTP. Before or after
    // start(), from any thread. TLS needs SIGPIPE to be ignored.
    Result<void> add_listener(Fd listening, Door door, std::shared_ptr<const Certificate> certificate = nullptr);
    // For the TLS connections that are accepted from now on; those there are keep theirs. Any thread.
    void set_certificate(std::shared_ptr<const Certificate> certificate);
    // Starts the first threads.
    Result<void> start();

    // No new connections; idle ones are closed; requests under way (detached ones, too) may finish until
    // `deadline`, then their connections are shut down. Returns when all threads have ended and all
    // detached connections are back.
    void stop(std::chrono::milliseconds deadline);

    // Null when all threads for long requests are in use: answer 503 with Retry-After.
    std::shared_ptr<LongSlot> take_long_slot();

    size_t connection_count() const;
    size_t thread_count() const;
    // What bodies take now, read or being read, until their handlers let go of them.
    size_t body_bytes() const;

  private:
    class Impl;
    std::unique_ptr<Impl> impl_;
};

}  // namespace torpor::http
