/*
 * For LD_PRELOAD: the disk of the journals fails while the file named by
 * KT_FULL_DISK exists.  Its first letter says how: f full (ENOSPC), t full in
 * the middle of a write, r read-only (EROFS, also for open).  Needs no mount
 * and stops root, too.
 */

#define _GNU_SOURCE

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>


/* 0 while the disk is well. */

static char
fault(void)
{
    int          fd;
    char         c;
    const char  *name;

    name = getenv("KT_FULL_DISK");

    if (name == NULL) {
        return 0;
    }

    fd = (int) syscall(SYS_openat, AT_FDCWD, name, O_RDONLY, 0);

    if (fd < 0) {
        return 0;
    }

    if (syscall(SYS_read, fd, &c, 1) != 1) {
        c = 0;
    }

    (void) syscall(SYS_close, fd);

    return c;
}


static int
is_journal(const char *path)
{
    size_t  len;

    len = strlen(path);

    return len > 4 && strcmp(path + len - 4, ".ktj") == 0;
}


ssize_t
write(int fd, const void *buf, size_t n)
{
    int      saved;
    char     how, link[64], path[4096];
    ssize_t  len;

    saved = errno;
    snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
    len = readlink(link, path, sizeof(path) - 1);
    errno = saved;

    if (len > 0) {
        path[len] = '\0';
        how = is_journal(path) ? fault() : 0;
        errno = saved;

        if (how == 't' && n > 1) {
            return syscall(SYS_write, fd, buf, n / 2);
        }

        if (how) {
            errno = how == 'r' ? EROFS : ENOSPC;
            return -1;
        }
    }

    return syscall(SYS_write, fd, buf, n);
}


static int
do_open(const char *path, int flags, mode_t mode)
{
    if ((flags & O_CREAT) && is_journal(path) && fault() == 'r') {
        errno = EROFS;
        return -1;
    }

    return (int) syscall(SYS_openat, AT_FDCWD, path, flags, mode);
}


int
open(const char *path, int flags, ...)
{
    mode_t   mode;
    va_list  ap;

    va_start(ap, flags);
    mode = flags & O_CREAT ? va_arg(ap, mode_t) : 0;
    va_end(ap);

    return do_open(path, flags, mode);
}


int
open64(const char *path, int flags, ...)
{
    mode_t   mode;
    va_list  ap;

    va_start(ap, flags);
    mode = flags & O_CREAT ? va_arg(ap, mode_t) : 0;
    va_end(ap);

    return do_open(path, flags, mode);
}
