/* A V4L2 camera for tests, preloaded into a machine: the file that FAKE_V4L2_DEVICE names is the device, and its content
 * every picture. A JPEG makes an MJPEG camera, anything else one of raw YUYV. Removing the file unplugs it. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/videodev2.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

enum { WIDTH = 64, HEIGHT = 48, LARGEST = 1 << 16, BUFFERS = 32, PERIOD_MS = 40 };

static int device = -1;
static char *memory[BUFFERS];
static int queue[BUFFERS];
static unsigned waiting, taken;
static long last_ms;

static int fail(int code) { errno = code; return -1; }

static long now_ms(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return t.tv_sec * 1000L + t.tv_nsec / 1000000L;
}

static unsigned format_of(int fd) {
  unsigned char head[2] = {0, 0};
  return pread(fd, head, 2, 0) == 2 && head[0] == 0xff && head[1] == 0xd8 ? V4L2_PIX_FMT_MJPEG : V4L2_PIX_FMT_YUYV;
}

static int opened(const char *path, int fd) {
  const char *fake = getenv("FAKE_V4L2_DEVICE");
  if (fd >= 0 && fake && !strcmp(path, fake)) {
    device = fd;
    waiting = taken = 0;
  }
  return fd;
}

int open(const char *path, int flags, ...) {
  va_list rest;
  va_start(rest, flags);
  int mode = va_arg(rest, int);
  va_end(rest);
  int (*real)(const char *, int, ...) = dlsym(RTLD_NEXT, "open");
  return opened(path, real(path, flags, mode));
}

int open64(const char *path, int flags, ...) {
  va_list rest;
  va_start(rest, flags);
  int mode = va_arg(rest, int);
  va_end(rest);
  int (*real)(const char *, int, ...) = dlsym(RTLD_NEXT, "open64");
  return opened(path, real(path, flags, mode));
}

int close(int fd) {
  int (*real)(int) = dlsym(RTLD_NEXT, "close");
  if (fd == device) device = -1;
  return real(fd);
}

static void *mapped(int fd, off_t offset, void *got) {
  if (fd == device && got != MAP_FAILED) memory[offset / LARGEST] = got;
  return got;
}

void *mmap(void *at, size_t size, int access, int flags, int fd, off_t offset) {
  void *(*real)(void *, size_t, int, int, int, off_t) = dlsym(RTLD_NEXT, "mmap");
  if (fd >= 0 && fd == device) return mapped(fd, offset, real(at, size, access, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
  return real(at, size, access, flags, fd, offset);
}

void *mmap64(void *at, size_t size, int access, int flags, int fd, off64_t offset) { return mmap(at, size, access, flags, fd, offset); }

static int dequeue(struct v4l2_buffer *buffer) {
  const char *path = getenv("FAKE_V4L2_DEVICE");
  if (access(path, F_OK)) return fail(ENODEV);
  if (taken == waiting || now_ms() - last_ms < PERIOD_MS) return fail(EAGAIN);
  last_ms = now_ms();
  buffer->index = queue[taken++ % BUFFERS];
  buffer->bytesused = pread(device, memory[buffer->index], LARGEST, 0);
  gettimeofday(&buffer->timestamp, 0);
  return 0;
}

static int answer(unsigned request, void *about) {
  switch (request) {
  case VIDIOC_QUERYCAP:
    ((struct v4l2_capability *)about)->capabilities = V4L2_CAP_VIDEO_CAPTURE | V4L2_CAP_STREAMING;
    return 0;
  case VIDIOC_S_FMT:
  case VIDIOC_G_FMT: {
    struct v4l2_pix_format *pix = &((struct v4l2_format *)about)->fmt.pix;
    pix->width = WIDTH, pix->height = HEIGHT, pix->field = V4L2_FIELD_NONE;
    pix->pixelformat = format_of(device);
    pix->bytesperline = pix->pixelformat == V4L2_PIX_FMT_YUYV ? WIDTH * 2 : 0;
    pix->sizeimage = pix->bytesperline ? WIDTH * HEIGHT * 2 : LARGEST;
    return 0;
  }
  case VIDIOC_ENUM_FMT: {
    struct v4l2_fmtdesc *description = about;
    if (description->index) return fail(EINVAL);
    description->pixelformat = format_of(device);
    return 0;
  }
  case VIDIOC_G_PARM:
  case VIDIOC_S_PARM: {
    struct v4l2_captureparm *capture = &((struct v4l2_streamparm *)about)->parm.capture;
    capture->capability = V4L2_CAP_TIMEPERFRAME;
    capture->timeperframe = (struct v4l2_fract){PERIOD_MS, 1000};
    return 0;
  }
  case VIDIOC_REQBUFS:
    ((struct v4l2_requestbuffers *)about)->count = BUFFERS;
    return 0;
  case VIDIOC_QUERYBUF: {
    struct v4l2_buffer *buffer = about;
    buffer->length = LARGEST, buffer->m.offset = buffer->index * LARGEST;
    return 0;
  }
  case VIDIOC_QBUF:
    queue[waiting++ % BUFFERS] = ((struct v4l2_buffer *)about)->index;
    return 0;
  case VIDIOC_DQBUF:
    return dequeue(about);
  case VIDIOC_G_INPUT:
    *(int *)about = 0;
    return 0;
  case VIDIOC_S_INPUT:
  case VIDIOC_ENUMINPUT:
  case VIDIOC_STREAMON:
  case VIDIOC_STREAMOFF:
    return 0;
  default:
    return fail(EINVAL);
  }
}

int ioctl(int fd, unsigned long request, ...) {
  va_list rest;
  va_start(rest, request);
  void *about = va_arg(rest, void *);
  va_end(rest);
  if (fd >= 0 && fd == device) return answer((unsigned)request, about);
  int (*real)(int, unsigned long, ...) = dlsym(RTLD_NEXT, "ioctl");
  return real(fd, request, about);
}
