using System.Runtime.Intrinsics;
using HpcBatchNorm.Tensors;

namespace HpcBatchNorm.Data;

/// <summary>A policy that draws operations on images at random, none of which had to be found for a data set.</summary>
public enum AutomaticPolicy
{
    /// <summary>No operation.</summary>
    None,

    /// <summary>
    /// TrivialAugment in its wide space (Müller and Hutter, 2103.10158), as torchvision's TrivialAugmentWide with bilinear interpolation: one operation of
    /// fourteen, its strength uniform among 31; outside the image is black.
    /// </summary>
    Trivial,

    /// <summary>
    /// RandAugment (Cubuk et al., 1909.13719) as timm's <c>rand-mM-nN-mstdS-inc1</c>: N operations of fifteen, one after the other, each done with
    /// probability 1/2, its magnitude normal about M with deviation S, between 0 and 10; outside the image is grey (128).
    /// </summary>
    Rand,
}

/// <summary>Applies an <see cref="AutomaticPolicy"/> to images of one size, which are rounded to bytes for it. Keeps its buffers; one per thread.</summary>
internal sealed class AutomaticAugmentation(int size)
{
    private const byte Black = 0, MiddleGrey = 128;

    // 31 strengths, 0 to 30.
    private const uint Strongest = 30;

    private byte[] _pixels = new byte[size * size * 3], _other = new byte[size * size * 3];

    /// <summary>The operations of both policies.</summary>
    internal enum Operation
    {
        // The first fourteen are TrivialAugment's, all but the first RandAugment's.
        Identity, ShearX, ShearY, TranslateX, TranslateY, Rotate, Brightness, Color, Contrast, Sharpness, Posterize, Solarize, AutoContrast, Equalize,
        Invert, SolarizeAdd,
    }

    /// <summary>The bytes of the image: R, G, B.</summary>
    internal Span<byte> Bytes => _pixels;

    /// <summary>Draws operations and applies them to the pixels of <paramref name="image"/>.</summary>
    public void Apply(Resampler image, AugmentationOptions options, ref RandomSequence random)
    {
        image.StoreRgb(_pixels);
        if (options.Policy == AutomaticPolicy.Trivial)
        {
            (Operation operation, double argument) = DrawTrivial(ref random);
            Apply(operation, argument, Black);
        }
        else
        {
            for (int i = 0; i < options.RandOperations; i++)
            {
                (Operation operation, double argument) = DrawRand(options.RandMagnitude, options.RandDeviation, ref random);
                Apply(operation, argument, MiddleGrey);
            }
        }

        for (int i = 0; i < image.Pixels.Length; i++)
        {
            image.Pixels[i] = Vector128.Create(_pixels[3 * i], _pixels[3 * i + 1], _pixels[3 * i + 2], 0f);
        }
    }

    /// <summary>One operation of TrivialAugment's wide space and its argument.</summary>
    internal static (Operation Operation, double Argument) DrawTrivial(ref RandomSequence random)
    {
        var operation = (Operation)random.NextBelow((uint)Operation.Invert);
        double strength = random.NextBelow(Strongest + 1);
        double signed = random.NextBelow(2) == 0 ? strength : -strength;
        return (operation, operation switch
        {
            // The division comes last, so that whole numbers are.
            Operation.ShearX or Operation.ShearY => 0.99 * signed / Strongest,
            Operation.TranslateX or Operation.TranslateY => Math.Truncate(32 * signed / Strongest), // pixels, whatever the size
            Operation.Rotate => 135 * signed / Strongest,
            Operation.Brightness or Operation.Color or Operation.Contrast or Operation.Sharpness => 1 + 0.99 * signed / Strongest,
            Operation.Posterize => 8 - Math.Round(6 * strength / Strongest),
            Operation.Solarize => 255 - 255 * strength / Strongest,
            _ => 0,
        });
    }

    /// <summary>One operation of timm's RandAugment of increasing severity and its argument; <see cref="Operation.Identity"/> for one that is not done.</summary>
    internal (Operation Operation, double Argument) DrawRand(double magnitude, double deviation, ref RandomSequence random)
    {
        var operation = (Operation)(1 + random.NextBelow((uint)Operation.SolarizeAdd));
        if (random.NextBelow(2) == 0)
        {
            return (Operation.Identity, 0);
        }

        double level = Math.Clamp(magnitude + deviation * random.NextGaussian(), 0, 10) / 10;
        double signed = random.NextBelow(2) == 0 ? level : -level;
        return (operation, operation switch
        {
            Operation.ShearX or Operation.ShearY => 0.3 * signed,
            Operation.TranslateX or Operation.TranslateY => 0.45 * size * signed,
            Operation.Rotate => 30 * signed,
            Operation.Brightness or Operation.Color or Operation.Contrast or Operation.Sharpness => Math.Max(0.1, 1 + 0.9 * signed),
            Operation.Posterize => 4 - Math.Truncate(4 * level),
            Operation.Solarize => 256 - Math.Truncate(256 * level),
            Operation.SolarizeAdd => Math.Truncate(110 * level),
            _ => 0,
        });
    }

    /// <summary>Applies one operation to <see cref="Bytes"/>.</summary>
    /// <param name="operation">Which.</param>
    /// <param name="argument">Its argument: a shear, pixels, degrees, a factor, bits, a threshold or an addend.</param>
    /// <param name="fill">What lies outside the image.</param>
    internal void Apply(Operation operation, double argument, byte fill)
    {
        switch (operation)
        {
            case Operation.Identity:
                break;
            case Operation.ShearX:
                Move([1, argument, 0, 0, 1, 0], fill);
                break;
            case Operation.ShearY:
                Move([1, 0, 0, argument, 1, 0], fill);
                break;
            case Operation.TranslateX:
                Move([1, 0, argument, 0, 1, 0], fill);
                break;
            case Operation.TranslateY:
                Move([1, 0, 0, 0, 1, argument], fill);
                break;
            case Operation.Rotate:
                PixelOperations.Rotate(_pixels, _other, size, argument, fill);
                Exchange();
                break;
            case Operation.Brightness:
                PixelOperations.Brightness(_pixels, (float)argument);
                break;
            case Operation.Color:
                PixelOperations.Color(_pixels, (float)argument);
                break;
            case Operation.Contrast:
                PixelOperations.Contrast(_pixels, (float)argument);
                break;
            case Operation.Sharpness:
                PixelOperations.Sharpness(_pixels, _other, size, (float)argument);
                Exchange();
                break;
            case Operation.Posterize:
                PixelOperations.Posterize(_pixels, (int)argument);
                break;
            case Operation.Solarize:
                PixelOperations.Solarize(_pixels, argument);
                break;
            case Operation.AutoContrast:
                PixelOperations.AutoContrast(_pixels);
                break;
            case Operation.Equalize:
                PixelOperations.Equalize(_pixels);
                break;
            case Operation.Invert:
                PixelOperations.Invert(_pixels);
                break;
            case Operation.SolarizeAdd:
                PixelOperations.SolarizeAdd(_pixels, (int)argument);
                break;
            default:
                throw new ArgumentOutOfRangeException(nameof(operation), operation, "no such operation");
        }
    }

    private void Move(ReadOnlySpan<double> places, byte fill)
    {
        PixelOperations.Affine(_pixels, _other, size, places, fill);
        Exchange();
    }

    private void Exchange() => (_pixels, _other) = (_other, _pixels);
}
