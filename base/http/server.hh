// An HTTP/1.1 server: cpp-httplib parses requests and writes responses; connections and threads are ours.
//
// All connections wait in one epoll set, each armed for one event. A free thread takes the next event
// itself (leader and followers, no hand-over), reads without waiting until the request's head is whole,
// and only then is bound to it; so idle, slow and half-open connections cost a descriptor and no thread.
// A thread that takes an event and leaves nobody waiting starts another one first, up to
// http_threads_max; spare ones end after http_thread_idle_max. With no connection open nothing wakes up.
//
// A request that may last long (a stream) must hold a LongSlot: http_threads_reserve threads are left for
// short ones.
#pragma once

#include "base/error.hh"
#include "base/fd.hh"
#include "base/http/stream.hh"

#include <httplib.h>

#include <atomic>
#include <chrono>
#include <functional>
#include <memory>

namespace torpor::http {

using httplib::Request;
using httplib::Response;

// Which door a request came through.
enum class Door { socket, tcp };

// The connection that the calling thread serves now; null outside a request.
struct Connection {
    Door door;
    SocketStream& stream;
};
const Connection* current_connection();

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
    struct Hooks {
        // Called with the head only, before any of the body is read. True: `response` is the answer.
        std::function<bool(const Request&, Response&)> admit;
        // Called for what admit let through, with the whole body in hand.
        std::function<void(const Request&, std::string body, Response&)> respond;
    };

    explicit Server(Hooks hooks);
    ~Server();
    Server(const Server&) = delete;
    Server& operator=(const Server&) = delete;

    // Serves a listening socket; takes ownership. Before or after start(), from any thread.
    Result<void> add_listener(Fd listening, Door door);
    // Starts the first threads.
    Result<void> start();

    // No new connections; idle ones are closed; requests under way may finish until `deadline`, then
    // their connections are shut down. Returns when all threads have ended.
    void stop(std::chrono::milliseconds deadline);

    // Null when all threads for long requests are in use: answer 503 with Retry-After.
    std::shared_ptr<LongSlot> take_long_slot();

    size_t connection_count() const;
    size_t thread_count() const;

  private:
    class Impl;
    std::unique_ptr<Impl> impl_;
};

}  // namespace torpor::http
