/* For LD_PRELOAD: a kernel that refuses what others do (rules S7, D14 and what users complain of), as REFUSE says.
 *
 * "segments": EIO for UDP_SEGMENT, as where a device cannot do the checksums. "large": EINVAL for a large frame, as
 * Linux 6.6.44 and its like for many. Each time a byte is appended to $REFUSED. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static int refuses(const char *what) {
    const char *wanted = getenv("REFUSE");
    return wanted && strcmp(wanted, what) == 0;
}

static ssize_t refuse(int error) {
    ssize_t (*real)(int, const void *, size_t) = (ssize_t(*)(int, const void *, size_t))dlsym(RTLD_NEXT, "write");
    int fd = open(getenv("REFUSED"), O_WRONLY | O_APPEND | O_CLOEXEC);
    if (fd < 0 || real(fd, "x", 1) != 1) abort();
    close(fd);
    errno = error;
    return -1;
}

ssize_t sendmsg(int fd, const struct msghdr *message, int flags) {
    if (refuses("segments") && message->msg_control)
        for (struct cmsghdr *c = CMSG_FIRSTHDR(message); c; c = CMSG_NXTHDR((struct msghdr *)(uintptr_t)message, c))
            if (c->cmsg_level == 17 && c->cmsg_type == 103) return refuse(EIO);
    ssize_t (*real)(int, const struct msghdr *, int) =
        (ssize_t(*)(int, const struct msghdr *, int))dlsym(RTLD_NEXT, "sendmsg");
    return real(fd, message, flags);
}

ssize_t write(int fd, const void *data, size_t size) {
    ssize_t (*real)(int, const void *, size_t) = (ssize_t(*)(int, const void *, size_t))dlsym(RTLD_NEXT, "write");
    const uint8_t *frame = data;
    /* virtio header: flags, gso_type, …; and a packet that is IP */
    if (refuses("large") && size > 1500 && frame[0] == 1 && (frame[1] == 1 || frame[1] == 4 || frame[1] == 5) &&
        (frame[10] >> 4 == 4 || frame[10] >> 4 == 6))
        return refuse(EINVAL);
    return real(fd, data, size);
}
