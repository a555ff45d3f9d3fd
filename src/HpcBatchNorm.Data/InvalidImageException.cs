namespace HpcBatchNorm.Data;

/// <summary>Bytes that were to be an image and are none that can be used. <see cref="Status"/> says in a word why, the message in a sentence.</summary>
public sealed class InvalidImageException : Exception
{
    /// <summary>Creates the exception for what became of the image.</summary>
    public InvalidImageException(ImageStatus status)
        : base(Describe(status)) => Status = status;

    internal InvalidImageException(ImageStatus status, string message)
        : base(message) => Status = status;

    /// <summary>Creates the exception with a message.</summary>
    public InvalidImageException(string message)
        : base(message)
    {
    }

    /// <summary>Creates the exception with a message and what caused it.</summary>
    public InvalidImageException(string message, Exception innerException)
        : base(message, innerException)
    {
    }

    /// <summary>Creates an exception without a message; exists because every exception has this constructor.</summary>
    public InvalidImageException()
    {
    }

    /// <summary>What is wrong with the image.</summary>
    public ImageStatus Status { get; } = ImageStatus.NotAnImage;

    private static string Describe(ImageStatus status) => status switch
    {
        ImageStatus.Empty => "The image has no bytes.",
        ImageStatus.NotAnImage => "The bytes are no JPEG, PNG, WebP, BMP or GIF image; give the content of an image file, or raw pixels with their width and height.",
        ImageStatus.Truncated => "The image ends before its pixels do; it was probably not transferred completely.",
        ImageStatus.Corrupt => "The image's data contradict themselves: it is damaged.",
        ImageStatus.TooLarge => "The image has more than 100 million pixels; make it smaller.",
        ImageStatus.TooManyScans => "The JPEG has more than 100 scans, which no encoder writes; store it anew.",
        _ => $"The image cannot be used: {status}.",
    };
}
