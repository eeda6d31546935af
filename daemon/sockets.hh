// The listening sockets: our own, the service manager's, and TCP.
#pragma once

#include "base/error.hh"
#include "base/fd.hh"
#include "daemon/tcp_address.hh"

#include <filesystem>

namespace torpor {

// Binds torpor.sock, 0600, in its 0700 folder. A socket file that is there already is replaced only if
// nobody answers on it; the caller holds the state folder's lock, so no other torpord can.
Result<Fd> listen_on_socket(const std::filesystem::path& path);

// A taken port, or an address that is not this machine's, is a `conflict`. [::] takes IPv4, too.
Result<Fd> listen_on_tcp(const TcpAddress& where);

// The first socket handed over by systemd (LISTEN_FDS, LISTEN_PID; sd_listen_fds(3)); empty if none. The
// variables are taken out of the environment.
Fd socket_from_service_manager();

// One datagram to NOTIFY_SOCKET (sd_notify(3)), if there is one.
void notify_service_manager(std::string_view state);

}  // namespace torpor
